//! Tests against real servers, one binary: a private Postgres and RabbitMQ are started once per run. See [`support`].

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod architecture;
mod assignee_sync;
mod assignment_truth;
mod backlog;
mod bad_input;
mod contracts;
mod deadlines;
mod engine_children;
mod engine_crash_loop;
mod engine_fence;
mod engine_line;
mod engine_retries;
mod engine_takeover;
mod engine_waits;
mod engine_wake_ups;
mod fairness;
mod governor;
mod governor_hanging;
mod group_writer;
mod identities;
mod interactions;
mod links;
mod messaging;
mod operator_check;
mod operator_dead_letters;
mod operator_keys;
mod operator_registry;
mod outages;
mod outcomes;
mod outgoing;
mod producer_examples;
mod publish_wait;
mod readme;
mod resume;
mod stage_contract;
mod storm;
mod support;
mod traces;
mod tracker_apply;
mod tracker_export;
mod tracker_fixture;
mod tracker_import;
mod tracker_reads;
