//! Producers: the messages that they may send, the outcomes that they receive, and the share of
//! the worker that each gets.

mod admission;
mod bad_input;
mod examples;
mod fairness;
mod neighbours;
mod outcomes;
mod publish_wait;
mod quotas;
mod spans;
mod subscribers;
mod traces;
