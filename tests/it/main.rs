//! Tests against real servers, one binary: a private Postgres and RabbitMQ are started once per run. See [`support`].

mod assignment_truth;
mod bad_input;
mod engine_line;
mod outages;
mod outcomes;
mod stage_contract;
mod support;
mod tracker_apply;
mod tracker_fixture;
mod tracker_import;
mod tracker_reads;
