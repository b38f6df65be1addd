//! A queue-driven worker: jobs pass through small stages that are safe to repeat, with checkpoints
//! in Postgres, and resume after any crash. README.md describes what it does, ARCHITECTURE.md how;
//! this is the map of the modules, in reading order.
//!
//! An engine, a product, its edges, and the path of a job:
//!
//! ```text
//! main → cli → operations, app → maintenance → worker → {store, broker}       worker runs what app hands it: pipelines over services
//!                      pipelines → {engine, tracker, providers}       store, broker → engine
//! ```
//!
//! *Nouns*, which do no I/O and which everything may name:
//! - [`job`]: ids, epochs, states, classes of effects; a claimed job
//! - [`message`]: messages of producers, wake-ups, outcome events and replies
//! - [`fault`]: failures as data: class, code, hint, certainty
//! - [`quota`]: limits on what a producer or an organization may have in Postgres
//! - [`escape`]: escaping of untrusted text in logs and on terminals
//! - [`secrets`]: the keyring, and values sealed with it
//! - [`tls_policy`]: connections to Postgres and RabbitMQ that are refused, and trusted
//!   authorities
//! - [`trace`]: the trace that a job belongs to
//! - [`pg_error`], [`reconnect`], [`crash_point`]: errors that mean that Postgres is unavailable;
//!   delays between attempts to connect; points where a test may abort the process
//!
//! *The engine*, which is independent of any particular stage:
//! - [`engine`]: stage, pipeline, checkpoint, effect, retry, and every branch in the life of a job
//!   ([`engine::decide`])
//!
//! *The product*:
//! - [`pipelines`]: ★ the list of pipelines and their lanes; one file per stage, one list per
//!   pipeline
//!
//! *The edges*, each the only place that names its driver:
//! - [`store`]: Postgres, the engine's tables: claim, commit, intent, due rows, takeover,
//!   the audit log
//! - [`tracker`]: Postgres, the product's tables: organizations, people, groups, links,
//!   destinations
//! - [`erasure`]: Postgres, both sets of tables: erasing a person or an organization
//! - [`broker`]: RabbitMQ: topology, consumers, confirmed publishes
//! - [`providers`]: HTTP and SMTP: Azure DevOps, Microsoft Entra, and the channels of messages
//!
//! *The path of a job*:
//! - [`worker`]: ★ from a delivery to its ack; lanes, lease, heartbeat, consumer liveness
//! - [`maintenance`]: ★ the duties of a replica, which run beside that path, a file for each
//! - [`app`]: assembles a worker process; the only module that spawns, besides the pool of
//!   `store`. With `holds`, which keeps the governor's holds in the store
//!
//! *What people use*:
//! - [`operations`]: ★ what a person can do, a file for each action: permission, precondition,
//!   change and audit row
//! - [`cli`]: one file per command; the only module that prints
//! - [`ops`], with the checks behind `/readyz` in `readiness`: health and metrics over HTTP
//! - [`config`]: settings; the only module that reads the environment
//! - [`telemetry`]: logs, and metrics by name; `otlp` (a feature): spans, to a collector
//! - `devkit` (a feature, left out of images): private servers, the provider simulator with its
//!   witness log, the demo

pub mod alerts;
pub mod app;
pub mod broker;
pub mod cli;
pub mod config;
pub mod console;
pub mod crash_point;
#[cfg(feature = "devkit")]
pub mod devkit;
pub mod engine;
pub mod erasure;
pub mod escape;
pub mod fault;
#[cfg(test)]
mod fuzz;
mod holds;
pub mod job;
pub mod maintenance;
pub mod message;
pub mod operations;
pub mod ops;
#[cfg(feature = "otlp")]
pub mod otlp;
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
