//! Integration tests with real servers, in one binary. A private Postgres and RabbitMQ start once
//! per run. See [`support`].

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot continue fails at once"
)]

mod console;
mod engine;
mod house;
mod maintenance;
mod operations;
mod operator;
mod producers;
mod providers;
mod store;
mod support;
mod tracker;
mod worker;
