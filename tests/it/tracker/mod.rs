//! The tracker's tables: what stages read and change in them, imports and exports.

mod apply;
mod assignee_sync;
mod assignment_truth;
mod export;
pub(crate) mod fixture;
mod import;
mod moved_secrets;
mod reads;
