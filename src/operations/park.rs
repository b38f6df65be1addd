//! Parks an open job, so that nothing runs until a person retries it.

use serde_json::json;

use super::OperationError;
use super::possible::{JobAction, obstacle};
use crate::fault::{MESSAGE_BYTES, codes, storable};
use crate::job::JobState;
use crate::store::{
    self, Action, ActionResult, Actor, JobChange, JobTransaction, LockedJob, Store, StoreError,
    Target,
};

const HINT: &str = "A person has parked the job. Read the reason, then retry, re-run or cancel it.";

/// Parks a job that is not done. A running job is taken from its owner, whose stage commits
/// nothing; an effect that it was making is judged when the job is retried. Its parent keeps waiting
/// for it.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn park(
    store: &Store,
    actor: &Actor,
    target: &Target,
) -> Result<ActionResult, OperationError> {
    store
        .change_job(actor, Action::Park, target, async |tx, job| {
            Ok(change(tx, actor, job).await?)
        })
        .await
}

/// Parks a locked job.
pub(super) async fn change(
    tx: &JobTransaction<'_>,
    actor: &Actor,
    job: &LockedJob,
) -> Result<JobChange, StoreError> {
    if job.row.state == JobState::Parked {
        return Ok(JobChange::Already);
    }
    if let Some(why) = obstacle(JobAction::Park, &job.row) {
        return Ok(JobChange::Refused(why));
    }
    let message = match &actor.reason {
        Some(reason) => storable(reason, MESSAGE_BYTES),
        None => format!("parked by {}", actor.who),
    };
    store::park(tx, job.row.id, codes::PARKED_BY_PERSON, &message, HINT).await?;
    Ok(JobChange::Done {
        now: JobState::Parked,
        after: json!({"state": "parked", "stage": job.row.stage}),
    })
}
