//! The operations server: health, readiness and metrics for whoever watches the worker. It only reads.

mod health;
mod server;

pub use health::{Check, Readiness};
pub use server::{OpsState, router, serve};
