//! The console: pages for people, and the API `/api/v1` for programs, in a process of its own. It
//! needs Postgres only, with two small pools of its own, one that reads and one that acts, so it
//! works while every worker and RabbitMQ are down, and takes no connection from a worker.
//!
//! `routes` is the table of everything that it answers; the router, the OpenAPI document and the
//! tests of permissions are made from it. A change is made by a function of
//! [`operations`](crate::operations), the same one that the command line calls.
//!
//! **Invariant:** every route of the console is a row of `console/routes.rs`, with the role that
//! it requires; a request is answered only after the role was checked there.

mod answer;
mod api;
mod auth;
mod call;
mod changes;
mod choose;
mod cursor;
#[cfg(test)]
mod fuzz;
mod in_force;
mod live;
mod mask;
mod openapi;
mod pages;
mod panels;
mod parameters;
mod problem;
mod query;
mod recent_samples;
mod routes;
mod schema;
mod security_log;
mod serve;
mod standing;
mod state;
mod summary;

pub use auth::SigningProxy;
pub(crate) use mask::masked_changes;
pub use openapi::document;
pub use routes::{Access, Parameter, Route, all};
pub use security_log::write_security_log;
pub use serve::router;
pub use state::{Console, ConsoleParts};
