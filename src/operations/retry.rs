//! Retries a job: it is due now, with all its attempts. Its checkpoints are kept, so it continues
//! at the stage where it stopped.

use serde_json::json;

use super::OperationError;
use super::possible::{JobAction, obstacle};
use crate::fault::codes;
use crate::job::JobState;
use crate::store::{
    Action, ActionResult, Actor, JobChange, JobTransaction, LockedJob, Store, StoreError, Target,
    execute,
};

pub(super) const RETRY: &str = "
    UPDATE jobs SET state = 'ready', epoch = epoch + 1, owner = NULL, attempt = 1, crash_count = 0, due_at = now(), woken_at = NULL,
        wait_reason = NULL, wait_key = NULL, wait_observed = NULL, deadline = CASE WHEN deadline < now() THEN NULL ELSE deadline END,
        read_again = read_again OR state = 'parked'
    WHERE id = $1";

/// The person who retries a job whose outcome is unknown accepts a duplicate. This is recorded
/// before the duplicate can happen.
const ALLOW_REPEAT: &str = "
    UPDATE effects SET state = 'failed', maybe_done = false, unknowns = unknowns + 1, settled_at = now()
    WHERE job_id = $1 AND (state IN ('in_flight', 'unknown') OR maybe_done)";

/// Retries a job that is parked, waiting or due later.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn retry(
    store: &Store,
    actor: &Actor,
    target: &Target,
) -> Result<ActionResult, OperationError> {
    let result = store.change_job(actor, Action::Retry, target, async |tx, job| {
        change(tx, job).await
    });
    Ok(result.await?)
}

/// Retries a locked job.
pub(super) async fn change(
    tx: &JobTransaction<'_>,
    job: &LockedJob,
) -> Result<JobChange, StoreError> {
    let row = &job.row;
    if row.state == JobState::Running {
        return Ok(JobChange::Already);
    }
    if let Some(why) = obstacle(JobAction::Retry, row) {
        return Ok(JobChange::Refused(why));
    }
    if row.error_code.as_deref() == Some(codes::UNKNOWN_OUTCOME) {
        execute(tx, ALLOW_REPEAT, &[&row.id.0]).await?;
    }
    execute(tx, RETRY, &[&row.id.0]).await?;
    Ok(JobChange::Done {
        now: JobState::Ready,
        after: json!({"state": "ready"}),
    })
}
