//! Writes on behalf of a running job besides the commit, and the read that decides a commit of
//! unknown outcome.

use std::time::Duration;

use serde_json::value::RawValue;
use tokio_postgres::types::Json;

use super::claim::Fence;
use super::error::StoreError;
use super::handle::Store;
use super::run::Run;
use super::sql::{execute, query, query_one, query_opt};
use crate::engine::{Commit, Record};
use crate::job::{Epoch, JobId, ReplicaId};
use crate::message::Request;

/// Whether a commit of unknown outcome went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    /// It went through. Its wake-ups and events are left to the waker.
    Yes,
    /// It did not go through, and this replica still owns the job: commit again.
    No,
    /// This replica no longer owns the job, whether the commit went through or not: do not write
    /// for it.
    Fenced,
}

/// Data that the current stage has fetched so far, when its job is given up.
#[derive(Debug, Clone, Copy)]
pub enum SoFar<'a> {
    /// The stage was not run: the stored value is kept.
    AsStored,
    /// This value, see [`crate::engine::Kept::to_stored`].
    Only(Option<&'a RawValue>),
}

/// Waits until Postgres has decided the old transaction. Its result is read by a separate
/// statement: one that began before the lock was granted would not see it.
const LOCK: &str =
    "SELECT epoch = $2 AND coalesce(owner = $3, false) AS ours FROM jobs WHERE id = $1 FOR UPDATE";

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
    /// Returns the running jobs that `replica` owns, with their epochs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn owned(&self, replica: ReplicaId) -> Result<Vec<(JobId, Epoch)>, StoreError> {
        let rows = query(&self.client().await?, OWNED, &[&replica.0]).await?;
        rows.iter()
            .map(|row| Ok((JobId(row.try_get("id")?), Epoch(row.try_get("epoch")?))))
            .collect()
    }

    /// Makes a job due that `replica` owns in this epoch but does not run. Returns `false` if the
    /// job has another owner or epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn free_orphan(
        &self,
        replica: ReplicaId,
        job: JobId,
        epoch: Epoch,
    ) -> Result<bool, StoreError> {
        Ok(execute(
            &self.client().await?,
            FREE_ORPHAN,
            &[&job.0, &epoch.0, &replica.0],
        )
        .await?
            == 1)
    }

    /// Reads back whether a commit went through whose answer was lost.
    ///
    /// # Errors
    /// [`StoreError`]; read again.
    pub async fn landed<C>(&self, run: Run<'_>, commit: &Commit<C>) -> Result<Landed, StoreError> {
        let Run { fence, job, .. } = run;
        let (stage, outcome) = match &commit.record {
            Record::Checkpoint(checkpoint) => (checkpoint.stage, ""),
            Record::Attempt(attempt) => (attempt.stage.as_str(), attempt.outcome.word()),
        };
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let locked =
            query_opt(&tx, LOCK, &[&fence.job.0, &fence.epoch.0, &fence.replica.0]).await?;
        let Some(locked) = locked else {
            return Ok(Landed::Fenced);
        };
        let row = query_one(
            &tx,
            LANDED,
            &[
                &fence.job.0,
                &fence.epoch.0,
                &job.generation.0,
                &stage,
                &job.attempt.0,
                &outcome,
            ],
        )
        .await?;
        Ok(match (row.try_get("landed")?, locked.try_get("ours")?) {
            (true, _) => Landed::Yes,
            (false, true) => Landed::No,
            (false, false) => Landed::Fenced,
        })
    }

    /// Gives up a claimed job without a record; it is due again after `delay`. Returns `false` if
    /// the write was fenced.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn postpone(
        &self,
        fence: &Fence,
        delay: Duration,
        so_far: SoFar<'_>,
    ) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let (job, epoch, owner) = (&fence.job.0, &fence.epoch.0, &fence.replica.0);
        let (partial, is_new) = match so_far {
            SoFar::AsStored => (None, false),
            SoFar::Only(partial) => (partial.map(Json), true),
        };
        let written = execute(
            &client,
            POSTPONE,
            &[job, epoch, owner, &delay.as_secs_f64(), &partial, &is_new],
        )
        .await?;
        Ok(written == 1)
    }

    /// Replaces the sealed payload of a job whose schema is known now, and gives up the job: it is
    /// due like one that has just arrived. Returns `false` if the write was fenced.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unseal(
        &self,
        fence: &Fence,
        payload: &RawValue,
        said: &Request,
    ) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let (job, epoch, owner) = (&fence.job.0, &fence.epoch.0, &fence.replica.0);
        let Request {
            organization,
            deadline,
            not_before,
            ..
        } = said;
        let written = execute(
            &client,
            UNSEAL,
            &[
                job,
                epoch,
                owner,
                &Json(payload),
                organization,
                deadline,
                not_before,
            ],
        )
        .await?;
        Ok(written == 1)
    }
}
