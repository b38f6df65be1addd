//! The commands of an operator.

mod audit_list;
mod audited;
mod bulk;
mod campaigns;
mod check;
mod controls;
pub(crate) mod dead_letters;
mod erasure;
mod failures;
mod forged_lines;
mod job_actions;
mod jobs;
mod keys;
mod registry;
mod secret_settings;
mod stuck;
