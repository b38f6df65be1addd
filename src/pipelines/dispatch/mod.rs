//! The pipeline `dispatch`: processes one incoming request in stages, one file for each.

pub mod check_account;
mod event_resource;
pub mod fetch_states;
pub mod get_accounts;
pub mod handle_events;
pub mod process_work_items;
pub mod retrieve_user;
pub mod search_issues;
pub mod send_follow_ups;
pub mod show_configuration;
pub mod sync_assignees;
pub mod update_assignments;

#[cfg(test)]
pub(super) mod samples;

pub use check_account::{CheckAccount, CheckedAccount};
pub use fetch_states::{AccountState, FetchStates, States};
pub use get_accounts::{Accounts, GetAccounts};
pub use handle_events::{HandleEvents, HandledEvents};
pub use process_work_items::{ProcessWorkItems, ProcessedWorkItems};
pub use retrieve_user::RetrieveUser;
pub use search_issues::{FoundWorkItems, SearchIssues};
pub use send_follow_ups::{FollowUps, SendFollowUps};
pub use show_configuration::{Configuration, Reason, ShowConfiguration};
pub use sync_assignees::{Plan, SyncAssignees};
pub use update_assignments::UpdateAssignments;

use super::{DISPATCH, Dispatch};
use crate::engine::{Pipeline, Stage};

/// The stage whose output says what a person can choose.
pub const CHOICE: &str = <ShowConfiguration as Stage>::NAME;

/// ★ Returns the pipeline with its stages in order, and the stage outside that order to which a
/// job without an account jumps.
#[must_use]
pub fn pipeline() -> Pipeline<Dispatch> {
    Pipeline::new("dispatch", DISPATCH)
        .then(CheckAccount)
        .then(FetchStates)
        .then(RetrieveUser)
        .then(GetAccounts)
        .then(SearchIssues)
        .then(HandleEvents)
        .then(ProcessWorkItems)
        .then(SyncAssignees)
        .then(UpdateAssignments)
        .then(SendFollowUps)
        .off_path(ShowConfiguration)
}
