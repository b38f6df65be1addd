//! Checks of the sources and the documents.

mod architecture;
mod deploy;
pub(crate) mod documents;
mod log_fields;
mod stage_contract;
