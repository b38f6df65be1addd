//! dispatch-worker: see ARCHITECTURE.md for the map.
pub mod broker;
pub mod config;
#[cfg(feature = "devkit")]
pub mod devkit;
pub mod engine;
pub mod fault;
pub mod job;
pub mod message;
pub mod pg_error;
pub mod providers;
pub mod reconnect;
pub mod secrets;
pub mod store;
pub mod tracker;
