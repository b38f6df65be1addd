//! Applies the plan, in one transaction: assignees, subscriptions, statuses, activity; the events count as seen.
//!
//! *Needs*: `fetch_states`, `handle_events`, `sync_assignees`.
//! *Effects*: none outside. Our own tables (K0): the changes are data, applied in the commit that stores the checkpoint.
//! *Safe to repeat*: changes and checkpoint are one transaction, and each link takes only a revision newer than its last.

use super::{FetchStates, HandleEvents, SyncAssignees};
use crate::engine::{Context, Stage, StageOutcome, StageResult};
use crate::pipelines::Dispatch;
use crate::tracker::{Applied, Changes};

/// The stage. Its output is what applying the plan has changed.
#[derive(Debug, Clone, Copy)]
pub struct UpdateAssignments;

impl Stage for UpdateAssignments {
    type Product = Dispatch;

    const NAME: &'static str = "update_assignments";
    const NEEDS: &'static [&'static str] = &[FetchStates::NAME, HandleEvents::NAME, SyncAssignees::NAME];
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
        Ok(StageOutcome::apply(Changes::Assignments { integration_id, links, seen_events }))
    }
}
