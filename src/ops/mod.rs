//! The operations server: health, readiness and metrics of the worker over HTTP. It changes
//! nothing.

mod connections;
mod health;
mod hosts;
mod server;

pub use connections::{serve, serve_console};
pub use health::{Check, Readiness};
pub use hosts::HostNames;
pub use server::{OpsState, router};
