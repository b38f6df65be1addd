//! Writes besides the commit on behalf of a running job, and what to do when nobody knows whether a commit went through.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio_postgres::types::Json;

use super::Store;
use super::claim::Fence;
use super::commit::Run;
use super::error::StoreError;
use super::sql::{execute, query, query_one, query_opt};
use crate::engine::{Commit, Record};
use crate::job::{Epoch, JobId, ReplicaId};
use crate::message::Request;

/// Whether a commit of unknown outcome went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    /// It did. Its wake-ups and events are left to the waker.
    Yes,
    /// It did not, and the job is still ours: commit again.
    No,
    /// The job is no longer ours, whether it did or not: touch nothing.
    Fenced,
}

/// What the stage due of a job has so far, where the job is given up.
#[derive(Debug, Clone, Copy)]
pub enum SoFar<'a> {
    /// It was not run: what is stored stays.
    AsStored,
    /// This, see [`crate::engine::Kept::to_stored`].
    Only(Option<&'a RawValue>),
}

/// Waits for an undecided old backend. The look at what it has stored is a statement of its own: one that began before the
/// lock was had would not see it.
const LOCK: &str = "SELECT epoch = $2 AND coalesce(owner = $3, false) AS ours FROM jobs WHERE id = $1 FOR UPDATE";

const LANDED: &str = "
    SELECT EXISTS (SELECT 1 FROM checkpoints WHERE job_id = $1 AND generation = $3 AND stage = $4 AND epoch = $2 AND attempt = $5)
        OR EXISTS (SELECT 1 FROM attempts WHERE job_id = $1 AND generation = $3 AND stage = $4 AND epoch = $2 AND attempt = $5
            AND outcome = $6) AS landed";

const OWNED: &str = "SELECT id, epoch FROM jobs WHERE owner = $1 AND state = 'running'";

const FREE_ORPHAN: &str = "
    UPDATE jobs SET state = 'ready', owner = NULL, epoch = epoch + 1, due_at = now(), woken_at = NULL
    WHERE id = $1 AND epoch = $2 AND owner = $3 AND state = 'running'";

const POSTPONE: &str = "
    UPDATE jobs SET state = 'ready', owner = NULL, due_at = now() + $4 * interval '1 second', woken_at = NULL,
        partial = CASE WHEN $6 THEN $5 ELSE partial END, read_again = read_again AND NOT $6
    WHERE id = $1 AND epoch = $2 AND owner = $3 AND state = 'running'";

const UNSEAL: &str = "
    UPDATE jobs SET payload = $4, sealed_payload = NULL, organization = $5, deadline = $6, state = 'ready', owner = NULL,
        due_at = greatest(now(), $7), woken_at = NULL
    WHERE id = $1 AND epoch = $2 AND owner = $3 AND state = 'running'";

impl Store {
    /// The running jobs that show `replica` as their owner, with their epochs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn owned(&self, replica: ReplicaId) -> Result<Vec<(JobId, Epoch)>, StoreError> {
        let rows = query(&self.client().await?, OWNED, &[&replica.0]).await?;
        rows.iter().map(|row| Ok((JobId(row.try_get("id")?), Epoch(row.try_get("epoch")?)))).collect()
    }

    /// Makes a job due that `replica` owns in this epoch without having it in hand. `false`: it has moved on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn free_orphan(&self, replica: ReplicaId, job: JobId, epoch: Epoch) -> Result<bool, StoreError> {
        Ok(execute(&self.client().await?, FREE_ORPHAN, &[&job.0, &epoch.0, &replica.0]).await? == 1)
    }

    /// Reads back whether a commit went through whose answer was lost.
    ///
    /// # Errors
    /// [`StoreError`]; ask again.
    pub async fn landed<C>(&self, run: Run<'_>, commit: &Commit<C>) -> Result<Landed, StoreError> {
        let Run { fence, job, .. } = run;
        let (stage, outcome) = match &commit.record {
            Record::Checkpoint(checkpoint) => (checkpoint.stage, ""),
            Record::Attempt(attempt) => (attempt.stage.as_str(), attempt.outcome.word()),
        };
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let locked = query_opt(&tx, LOCK, &[&fence.job.0, &fence.epoch.0, &fence.replica.0]).await?;
        let Some(locked) = locked else { return Ok(Landed::Fenced) };
        let row =
            query_one(&tx, LANDED, &[&fence.job.0, &fence.epoch.0, &job.generation.0, &stage, &job.attempt.0, &outcome]).await?;
        Ok(match (row.try_get("landed")?, locked.try_get("ours")?) {
            (true, _) => Landed::Yes,
            (false, true) => Landed::No,
            (false, false) => Landed::Fenced,
        })
    }

    /// Gives a claimed job up without a record, due again after `delay`. `false`: it was no longer ours.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone(&self, fence: &Fence, delay: Duration, so_far: SoFar<'_>) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let (job, epoch, owner) = (&fence.job.0, &fence.epoch.0, &fence.replica.0);
        let (partial, is_new) = match so_far {
            SoFar::AsStored => (None, false),
            SoFar::Only(partial) => (partial.map(Json), true),
        };
        let written = execute(&client, POSTPONE, &[job, epoch, owner, &delay.as_secs_f64(), &partial, &is_new]).await?;
        Ok(written == 1)
    }

    /// Replaces the sealed bytes of a job whose schema has become known, and gives the job up: it is due as one that has just
    /// come. `false`: it was no longer ours.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unseal(&self, fence: &Fence, payload: &RawValue, said: &Request) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let (job, epoch, owner) = (&fence.job.0, &fence.epoch.0, &fence.replica.0);
        let Request { organization, deadline, not_before, .. } = said;
        let written = execute(&client, UNSEAL, &[job, epoch, owner, &Json(payload), organization, deadline, not_before]).await?;
        Ok(written == 1)
    }
}
