//! Checks of the sources and the documents.

mod architecture;
pub(crate) mod documents;
mod log_fields;
mod stage_contract;
