//! dispatch-worker: see ARCHITECTURE.md for the map.
pub mod app;
pub mod broker;
pub mod cli;
pub mod config;
pub mod crash_point;
#[cfg(feature = "devkit")]
pub mod devkit;
pub mod engine;
pub mod fault;
pub mod job;
pub mod message;
pub mod ops;
pub mod pg_error;
pub mod pipelines;
pub mod providers;
mod readiness;
pub mod reconnect;
pub mod secrets;
pub mod store;
pub mod telemetry;
pub mod tracker;
pub mod worker;
