//! Cancels the jobs that match a filter, page by page. The audit log gets a row for each job, and
//! one before the first and one after the last for the action.

use serde_json::{Value, json};

use super::OperationError;
use crate::job::JobId;
use crate::store::{Action, Actor, ChosenJobs, Store};

/// What was cancelled so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct CancelledMany {
    /// Jobs that matched.
    pub jobs: u64,
    /// Their follow-ups.
    pub follow_ups: u64,
}

/// Cancels the chosen jobs and their open follow-ups. After each page but the last, `progress`
/// receives what was cancelled so far, and up to which id.
///
/// # Errors
/// [`OperationError::Store`]. What was cancelled before stays cancelled and no longer matches, so
/// the action can be repeated unchanged.
pub async fn cancel_many(
    store: &Store,
    actor: &Actor,
    chosen: &ChosenJobs,
    mut progress: impl FnMut(CancelledMany, JobId),
) -> Result<CancelledMany, OperationError> {
    let filter = json!(chosen.filter());
    store
        .audit(actor, Action::CancelMany, &Value::Null, &filter)
        .await?;
    let (mut after, mut total) = (None, CancelledMany::default());
    loop {
        let page = store.cancel_page(chosen, after, actor).await?;
        total.jobs += page.jobs;
        total.follow_ups += page.follow_ups;
        let Some(next) = page.next else { break };
        progress(total, next);
        after = Some(next);
    }
    let done = json!({"cancelled": total.jobs, "follow_ups_cancelled": total.follow_ups});
    store
        .audit(actor, Action::CancelledMany, &filter, &done)
        .await?;
    Ok(total)
}
