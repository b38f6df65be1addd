//! A queue-driven worker: jobs go through small stages that are safe to repeat, with checkpoints in Postgres, and resume after
//! any crash. README.md says what it promises, ARCHITECTURE.md how it keeps it; this is the map, in reading order.
//!
//! An engine, a product, its edges, one straight line:
//!
//! ```text
//! main → cli → app → maintenance → worker → {store, broker}       worker runs what app hands it: pipelines over services
//!                      pipelines → {engine, tracker, providers}       store, broker → engine
//! ```
//!
//! *Nouns*, which do no I/O and which everything may name:
//! - [`job`]: ids, epochs, states, classes of effects; a claimed job
//! - [`message`]: what producers send, what the worker sends itself, what it announces
//! - [`fault`]: what went wrong, as data: class, code, hint, certainty
//! - [`quota`]: how much a producer or an organization may have in Postgres
//! - [`escape`]: text of others in logs and on terminals
//! - [`secrets`]: the keyring, and values sealed with it
//! - [`tls_policy`]: which ways to Postgres and RabbitMQ are refused, and whom TLS trusts
//! - [`trace`]: the trace that a job belongs to
//! - [`pg_error`], [`reconnect`], [`crash_point`]: which errors say that Postgres is ill; delays between attempts to connect;
//!   where a test may abort the process
//!
//! *The engine*, which knows that there are stages, not which:
//! - [`engine`]: stage, pipeline, checkpoint, effect, retry, and every branch of a job's life ([`engine::decide`])
//!
//! *The product*:
//! - [`pipelines`]: ★ the list of pipelines and their lanes; one file per stage, one list per pipeline
//!
//! *The edges*, each the only place that names its driver:
//! - [`store`]: Postgres, the engine's tables: claim, commit, intent, due rows, takeover, operators' actions
//! - [`tracker`]: Postgres, the product's tables: organizations, people, groups, links, destinations
//! - [`erasure`]: a person or an organization erased from the tables of both
//! - [`broker`]: RabbitMQ: topology, consumers, confirmed publishes
//! - [`providers`]: HTTP and SMTP: Azure DevOps, Microsoft Entra, and the channels that messages go through
//!
//! *The line*:
//! - [`worker`]: ★ from a delivery to its ack; lanes, lease, heartbeat, deafness
//! - [`maintenance`]: ★ the duties of a replica beside it, a file for each
//! - [`app`]: a worker process put together; the only module that spawns, beside the
//!   pool of `store`. With `holds`, where the governor's holds are stored
//!
//! *What people touch*:
//! - [`cli`]: one file per command; the only module that prints
//! - [`ops`], with what a worker says of itself in `readiness`: health and metrics over HTTP
//! - [`config`]: settings; the only module that reads the environment
//! - [`telemetry`]: logs, and metrics by name
//! - `devkit` (a feature, left out of images): private servers, the provider simulator with its witness log, the demo

pub mod app;
pub mod broker;
pub mod cli;
pub mod config;
pub mod crash_point;
#[cfg(feature = "devkit")]
pub mod devkit;
pub mod engine;
pub mod erasure;
pub mod escape;
pub mod fault;
mod holds;
pub mod job;
pub mod maintenance;
pub mod message;
pub mod ops;
pub mod pg_error;
pub mod pipelines;
pub mod providers;
pub mod quota;
mod readiness;
pub mod reconnect;
pub mod secrets;
pub mod store;
pub mod telemetry;
pub mod tls_policy;
pub mod trace;
pub mod tracker;
pub mod worker;
