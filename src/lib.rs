//! dispatch-worker: see ARCHITECTURE.md for the map.
#[cfg(feature = "devkit")]
pub mod devkit;
pub mod engine;
pub mod fault;
pub mod job;
