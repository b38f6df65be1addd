//! dispatch-worker: see ARCHITECTURE.md for the map.
pub mod engine;
pub mod fault;
pub mod job;
pub mod message;
pub mod pg_error;
pub mod pipelines;
pub mod providers;
pub mod secrets;
pub mod tracker;
