//! Starts a job again at a stage, as a new generation: what re-running and editing have in common.

use crate::store::{LockedJob, StoreError, Transaction, cancel_children, execute, query};

const STORED: &str = "SELECT stage FROM checkpoints WHERE job_id = $1 AND generation = $2";

const CARRY: &str = "
    INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at, finished_at)
    SELECT job_id, generation + 1, stage, version, output, epoch, attempt, replica, started_at, finished_at
    FROM checkpoints WHERE job_id = $1 AND generation = $2 AND stage = ANY ($3)";

const RESTART: &str = "
    UPDATE jobs SET state = 'ready', epoch = epoch + 1, owner = NULL, generation = generation + 1, stage = $2, attempt = 1,
        crash_count = 0, due_at = now(), woken_at = NULL, wait_reason = NULL, wait_key = NULL, wait_observed = NULL, error_code = NULL,
        error_message = NULL, error_hint = NULL, fingerprint = NULL, first_failed_at = NULL, open_children = 0, partial = NULL,
        read_again = false, skipped = CASE WHEN $3 THEN skipped END, deadline = CASE WHEN deadline < now() THEN NULL ELSE deadline END
    WHERE id = $1";

/// Returns the stages that have a checkpoint in the job's present generation.
pub(super) async fn stored(
    tx: &Transaction<'_>,
    job: &LockedJob,
) -> Result<Vec<String>, StoreError> {
    query(tx, STORED, &[&job.row.id.0, &job.row.generation])
        .await?
        .iter()
        .map(|row| Ok(row.try_get("stage")?))
        .collect()
}

/// Makes the job due at `stage` as a new generation that keeps the checkpoints of the stages
/// `carried`. Its open follow-ups belong to the generation that ends, so they are cancelled, as when
/// an account is chosen; returns their number.
pub(super) async fn restart(
    tx: &Transaction<'_>,
    job: &LockedJob,
    stage: &str,
    carried: &[&str],
) -> Result<u64, StoreError> {
    let id = job.row.id;
    let children = cancel_children(tx, id).await?;
    execute(tx, CARRY, &[&id.0, &job.row.generation, &carried]).await?;
    execute(tx, RESTART, &[&id.0, &stage, &!carried.is_empty()]).await?;
    Ok(children)
}
