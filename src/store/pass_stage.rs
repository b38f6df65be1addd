//! Passes a stage for a person: its checkpoint is stored as given, and the job continues after it.

use deadpool_postgres::Transaction;
use serde_json::value::RawValue;
use tokio_postgres::types::Json;

use super::actions::LockedJob;
use super::announcements::announce;
use super::error::StoreError;
use super::job_row::state_of;
use super::rows;
use super::sql::{execute, query_one};
use crate::job::JobState;
use crate::message::outcome;

/// The checkpoint of a stage that a person has passed.
#[derive(Debug, Clone, Copy)]
pub struct PassedStage<'a> {
    /// The stage due.
    pub stage: &'a str,
    /// The version of its output.
    pub version: i32,
    /// Its output.
    pub output: &'a RawValue,
}

/// Replica 0 exists nowhere else: it stands for a person.
const CHECKPOINT: &str = "
    INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
    SELECT id, generation, $2, $3, $4, epoch + 1, attempt, 0, now() FROM jobs WHERE id = $1
    ON CONFLICT (job_id, generation, stage) DO NOTHING";

/// A claim loads checkpoints only if a claim has committed something.
const CONTINUE: &str = "
    UPDATE jobs SET state = 'ready', epoch = epoch + 1, owner = NULL, stage = $2, attempt = 1, crash_count = 0, due_at = now(),
        woken_at = NULL, wait_reason = NULL, wait_key = NULL, wait_observed = NULL, error_code = NULL, error_message = NULL,
        error_hint = NULL, fingerprint = NULL, first_failed_at = NULL, partial = NULL, read_again = false, last_progress_at = now(),
        committed_epoch = greatest(committed_epoch, 1), deadline = CASE WHEN deadline < now() THEN NULL ELSE deadline END
    WHERE id = $1
    RETURNING state";

const FINISH: &str = "
    UPDATE jobs SET state = CASE WHEN open_children > 0 THEN 'waiting' ELSE 'succeeded' END, epoch = epoch + 1, owner = NULL,
        attempt = 1, crash_count = 0, woken_at = NULL, wait_reason = CASE WHEN open_children > 0 THEN 'children' END,
        wait_key = CASE WHEN open_children > 0 THEN 'children' END, wait_observed = NULL, error_code = NULL, error_message = NULL,
        error_hint = NULL, fingerprint = NULL, first_failed_at = NULL, partial = NULL, read_again = false, last_progress_at = now(),
        committed_epoch = greatest(committed_epoch, 1), finished_at = CASE WHEN open_children = 0 THEN now() END
    WHERE id = $1
    RETURNING state";

/// Stores the checkpoint of the stage due and continues at `next`; without one, the job finishes.
/// Returns its state afterwards, or `None` if the stage has a checkpoint already: then nothing was
/// changed.
///
/// # Errors
/// [`StoreError`].
pub async fn pass_stage(
    tx: &Transaction<'_>,
    job: &LockedJob,
    passed: PassedStage<'_>,
    next: Option<&str>,
) -> Result<Option<JobState>, StoreError> {
    let id = job.row.id;
    let output = Json(passed.output);
    if execute(
        tx,
        CHECKPOINT,
        &[&id.0, &passed.stage, &passed.version, &output],
    )
    .await?
        == 0
    {
        return Ok(None);
    }
    let state = match next {
        Some(next) => state_of(&query_one(tx, CONTINUE, &[&id.0, &next]).await?)?,
        None => state_of(&query_one(tx, FINISH, &[&id.0]).await?)?,
    };
    if state == JobState::Succeeded {
        announce(tx, &[id], outcome::SUCCEEDED, 0.0).await?;
        if let Some(parent) = job.row.parent
            && rows::child_done(tx, parent).await?
        {
            announce(tx, &[parent], outcome::SUCCEEDED, 0.0).await?;
        }
    }
    Ok(Some(state))
}
