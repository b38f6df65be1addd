//! Checks of the sources and the documents.

mod architecture;
mod browser;
mod deploy;
pub(crate) mod documents;
mod log_fields;
mod shell;
mod stage_contract;
