//! Servers that fail: a worker without Postgres or RabbitMQ, and its connections to them.

mod addresses;
mod frozen_postgres;
pub(crate) mod isolation;
mod links;
mod outages;
mod server;
mod standby;
mod startup;
mod unavailable_servers;
