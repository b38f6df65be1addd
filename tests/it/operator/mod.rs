//! The commands of an operator.

mod audited;
mod bulk;
mod campaigns;
mod check;
pub(crate) mod dead_letters;
mod erasure;
mod forged_lines;
mod jobs;
mod keys;
mod registry;
mod secret_settings;
