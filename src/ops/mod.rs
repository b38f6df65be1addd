//! The operations server: health, readiness and metrics for whoever watches the worker. It only reads.

mod connections;
mod health;
mod hosts;
mod server;

pub use connections::serve;
pub use health::{Check, Readiness};
pub use hosts::HostNames;
pub use server::{OpsState, router};
