//! The statements of the store: commits in groups, fences, effects, keys, and the roles that may
//! run them.

mod dedupe_keys;
mod dependent_rows;
mod due_rows;
mod effects;
mod fences;
pub(crate) mod group_commit;
mod lost_commits;
mod migrations;
mod proportion;
mod replicas;
mod roles;
mod sealed_headers;
mod standing;
