//! Applies the plan in one transaction: assignees, subscriptions, statuses and activity. The same
//! transaction marks the events as seen.
//!
//! *Needs*: `fetch_states`, `handle_events`, `sync_assignees`.
//! *Effects*: none outside Postgres. The changes to our own tables (K0) are data, which the commit
//! of the checkpoint applies.
//! *Safe to repeat*: changes and checkpoint are one transaction, and a link accepts only a revision
//! newer than its last one.

use super::{FetchStates, HandleEvents, SyncAssignees};
use crate::engine::{Context, Stage, StageOutcome, StageResult};
use crate::pipelines::Dispatch;
use crate::tracker::{Applied, Changes};

/// The stage. Its output lists the changes that applying the plan has made.
#[derive(Debug, Clone, Copy)]
pub struct UpdateAssignments;

impl Stage for UpdateAssignments {
    type Product = Dispatch;

    const NAME: &'static str = "update_assignments";
    const NEEDS: &'static [&'static str] =
        &[FetchStates::NAME, HandleEvents::NAME, SyncAssignees::NAME];
    type Output = Applied;

    async fn run(&self, cx: &Context<'_, Dispatch>) -> StageResult<Self> {
        let links = cx.output::<SyncAssignees>()?.links;
        let accepted = cx.output::<HandleEvents>()?.accepted;
        // A commit without changes can share its transaction with other jobs' commits.
        if links.is_empty() && accepted.is_empty() {
            return Ok(StageOutcome::of(Applied::default()));
        }
        let integration_id = cx.output::<FetchStates>()?.account()?.integration_id;
        let seen_events = accepted.into_iter().map(|event| event.event_id).collect();
        Ok(StageOutcome::apply(Changes::Assignments {
            integration_id,
            links,
            seen_events,
        }))
    }
}
