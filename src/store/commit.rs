//! The commit: one transaction, fenced by the claim's epoch, that stores the result of a stage and
//! moves the job.

use std::pin::Pin;
use std::sync::Arc;

use deadpool_postgres::Transaction;
use serde_json::value::RawValue;
use tokio_postgres::types::Json;
use tokio_util::sync::CancellationToken;

use super::advance::{Move, advance};
use super::announcements::{Announcement, WRITER_PUBLISHES, announce, announce_follow_ups};
use super::batched_commit::PlainCommit;
use super::claim::{Claimed, Wanted};
use super::controls;
use super::error::StoreError;
use super::group_commit::Groups;
use super::handle::Store;
use super::intake::Intaken;
use super::new_job::NewJob;
use super::rows::{self, FirstStages};
use super::run::Run;
use super::sql::execute;
use crate::engine::{Commit, EffectOutcome, Next, Record};
use crate::fault::StageFault;
use crate::job::{JobId, JobState, ReplicaId};
use crate::message::outcome;

/// The product's part of the engine's transactions.
pub trait Tables: Send + Sync + 'static {
    /// Changes of the product's tables.
    type Changes: Send + Sync + 'static;

    /// Applies changes. Returns the checkpoint of a stage that has no output of its own.
    fn apply<'a>(
        &'a self,
        tx: &'a tokio_postgres::Transaction<'_>,
        job: JobId,
        changes: &'a Self::Changes,
    ) -> Pin<Box<dyn Future<Output = Result<Box<RawValue>, StageFault>> + Send + 'a>>;

    /// Returns whether the cause `key` is still present as it was `observed`, read under `FOR
    /// SHARE`. `None` if the cause cannot be tested.
    fn cause_present<'a>(
        &'a self,
        tx: &'a tokio_postgres::Transaction<'_>,
        key: &'a str,
        observed: i64,
    ) -> Pin<Box<dyn Future<Output = Result<Option<bool>, StageFault>> + Send + 'a>>;
}

/// Result of a commit.
#[derive(Debug)]
pub struct Committed {
    /// State of the job; `Running` if the claim continues.
    pub state: JobState,
    /// The current stage of the job.
    pub stage: String,
    /// The stored checkpoint.
    pub output: Option<Box<RawValue>>,
    /// Rows that this commit has made due and whose wake-ups the caller publishes: id and
    /// pipeline.
    pub wake: Vec<(JobId, String)>,
    /// Outcome events that the caller publishes.
    pub announcements: Vec<Announcement>,
    /// The parent, if this was its last open follow-up: it has succeeded, too.
    pub parent_done: Option<JobId>,
}

/// Error of a commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The job has another owner or epoch; the caller must not write for it any more.
    #[error("fenced: another claim or an action has changed the job")]
    Fenced,
    /// The product's changes cannot be applied.
    #[error("the stage's changes cannot be applied")]
    Changes(StageFault),
    /// A statement or the connection failed.
    #[error("the commit failed")]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for CommitError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(StoreError::Database(error))
    }
}

const CHECKPOINT: &str = "
    INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() - $9 * interval '1 second')";

const ATTEMPT: &str = "
    INSERT INTO attempts (job_id, generation, stage, attempt, outcome, error_code, message, duration_ms, replica, epoch, fingerprint)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

const SETTLE_EFFECT: &str = "
    UPDATE effects SET state = $3, provider_ref = coalesce($4, provider_ref), settled_at = now()
    WHERE job_id = $1 AND key = $2";

const SETTLE_LEFTOVER: &str = "
    UPDATE effects SET state = $4, settled_at = now()
    WHERE job_id = $1 AND generation = $2 AND stage = $3 AND state IN ('in_flight', 'unknown')";

/// Writes all claims and commits.
pub struct Writer<T> {
    store: Store,
    groups: Groups,
    tables: T,
    first_stages: FirstStages,
}

impl<T: Tables> Writer<T> {
    /// Creates a writer over the engine's tables, with its own connections
    /// ([`super::writers_pool`]), the product's tables and the first stages of the pipelines.
    #[must_use]
    pub fn new(
        store: Store,
        pool: deadpool_postgres::Pool,
        tables: T,
        first_stages: FirstStages,
    ) -> Self {
        Self {
            store,
            groups: Groups::new(pool),
            tables,
            first_stages,
        }
    }

    /// Returns the engine's tables.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the product's tables.
    #[must_use]
    pub const fn tables(&self) -> &T {
        &self.tables
    }

    /// Writes groups until `end`. `app` runs [`super::WRITERS`] of these; without one, no write
    /// completes.
    pub async fn write_groups(&self, end: CancellationToken) {
        self.groups.write(end).await;
    }

    /// Inserts a row for an intake message. If `new.owner` is set and the job is due, the same
    /// statement claims it.
    ///
    /// # Errors
    /// [`StoreError`]. If the connection was lost, the row may be stored: a redelivery of the
    /// message finds it.
    pub async fn intake(&self, new: &Arc<NewJob>) -> Result<Intaken, StoreError> {
        self.groups.intake(Arc::clone(new)).await
    }

    /// Claims a row that is ready and due.
    ///
    /// # Errors
    /// [`StoreError`]. If the connection was lost, the row may be claimed: [`Store::adopt`] finds
    /// out.
    pub async fn claim(&self, replica: ReplicaId, job: JobId) -> Result<Claimed, StoreError> {
        self.groups.claim(Wanted { job, replica }).await
    }

    /// Deletes events that the broker has confirmed, with a later group. An event that is not
    /// deleted is published again.
    pub fn announced(&self, ids: Vec<i64>) {
        self.groups.announced(ids);
    }

    /// Stores the result of a stage and moves the job.
    ///
    /// # Errors
    /// [`CommitError`]. After [`CommitError::Store`] the commit may have gone through:
    /// [`Store::landed`] finds out.
    pub async fn commit(
        &self,
        run: Run<'_>,
        commit: &Commit<T::Changes>,
    ) -> Result<Committed, CommitError> {
        match PlainCommit::of(run, commit) {
            Some(plain) => self.commit_plain(plain).await,
            None => self.commit_whole(run, commit).await,
        }
    }

    async fn commit_plain(&self, plain: PlainCommit) -> Result<Committed, CommitError> {
        let (stage, output) = (plain.due.clone(), Some(plain.output.clone()));
        let done = self
            .groups
            .commit(plain)
            .await?
            .ok_or(CommitError::Fenced)?;
        let announcements = done.announcement.into_iter().collect();
        Ok(Committed {
            state: done.state,
            stage,
            output,
            wake: Vec::new(),
            announcements,
            parent_done: None,
        })
    }

    async fn commit_whole(
        &self,
        run: Run<'_>,
        commit: &Commit<T::Changes>,
    ) -> Result<Committed, CommitError> {
        let Run { fence, job, .. } = run;
        let mut client = self.store.client().await?;
        let tx = client.transaction().await.map_err(StoreError::Database)?;
        if let Some(parent) = job.parent {
            // A parent is locked before its follow-up everywhere, so that two commits never wait
            // for each other.
            rows::lock(&tx, parent).await?;
        }
        let cause_gone = self.cause_gone(&tx, &commit.next).await?;
        let step = Move::of(job, commit, cause_gone);
        let Some(moved) = advance(&tx, fence, &step).await? else {
            return Err(CommitError::Fenced);
        };
        let applied = self.apply(&tx, job.id, commit).await?;
        let output = record(&tx, run, &commit.record, applied).await?;
        if let Some(effect) = &commit.effect {
            settle(&tx, job.id, effect).await?;
        }
        if let Some(state) = commit.leftover {
            execute(
                &tx,
                SETTLE_LEFTOVER,
                &[&job.id.0, &job.generation.0, &job.stage, &state.word()],
            )
            .await?;
        }
        let mut wake = rows::insert_children(
            &tx,
            job,
            fence.replica,
            &commit.children,
            &self.first_stages,
        )
        .await?;
        if moved.woken {
            wake.push((job.id, job.pipeline.clone()));
        }
        let mut announcements = Vec::new();
        if let Some(event) = moved.event {
            announcements = announce(&tx, &[job.id], &event, WRITER_PUBLISHES).await?;
        }
        if job.parent.is_some() && moved.state == JobState::Parked {
            announcements.extend(announce_follow_ups(&tx, &[job.id], WRITER_PUBLISHES).await?);
        }
        let mut parent_done = None;
        if let (Some(parent), JobState::Succeeded) = (job.parent, moved.state)
            && rows::child_done(&tx, parent).await?
        {
            announcements
                .extend(announce(&tx, &[parent], outcome::SUCCEEDED, WRITER_PUBLISHES).await?);
            parent_done = Some(parent);
        }
        tx.commit().await?;
        Ok(Committed {
            state: moved.state,
            stage: step.stage,
            output,
            wake,
            announcements,
            parent_done,
        })
    }

    async fn apply(
        &self,
        tx: &Transaction<'_>,
        job: JobId,
        commit: &Commit<T::Changes>,
    ) -> Result<Option<Box<RawValue>>, CommitError> {
        let Some(changes) = &commit.changes else {
            return Ok(None);
        };
        self.tables
            .apply(tx, job, changes)
            .await
            .map(Some)
            .map_err(CommitError::Changes)
    }

    async fn cause_gone(&self, tx: &Transaction<'_>, next: &Next) -> Result<bool, CommitError> {
        let Next::Wait { on, .. } = next else {
            return Ok(false);
        };
        let present = match controls::hold_present(tx, &on.key).await? {
            Some(present) => Some(present),
            None => self
                .tables
                .cause_present(tx, &on.key, on.observed)
                .await
                .map_err(CommitError::Changes)?,
        };
        Ok(present == Some(false))
    }
}

async fn record(
    tx: &Transaction<'_>,
    run: Run<'_>,
    record: &Record,
    applied: Option<Box<RawValue>>,
) -> Result<Option<Box<RawValue>>, StoreError> {
    let Run { fence, job, took } = run;
    match record {
        Record::Checkpoint(checkpoint) => {
            let output = checkpoint
                .output
                .clone()
                .or(applied)
                .unwrap_or_else(|| RawValue::NULL.to_owned());
            execute(
                tx,
                CHECKPOINT,
                &[
                    &job.id.0,
                    &job.generation.0,
                    &checkpoint.stage,
                    &checkpoint.version,
                    &Json(&output),
                    &fence.epoch.0,
                    &job.attempt.0,
                    &fence.replica.0,
                    &took.as_secs_f64(),
                ],
            )
            .await?;
            Ok(Some(output))
        }
        Record::Attempt(attempt) => {
            execute(
                tx,
                ATTEMPT,
                &[
                    &job.id.0,
                    &job.generation.0,
                    &attempt.stage,
                    &job.attempt.0,
                    &attempt.outcome.word(),
                    &attempt.failure.code,
                    &attempt.failure.message,
                    &i64::try_from(took.as_millis()).unwrap_or(i64::MAX),
                    &fence.replica.0,
                    &fence.epoch.0,
                    &attempt.failure.fingerprint,
                ],
            )
            .await?;
            Ok(None)
        }
    }
}

async fn settle(
    tx: &Transaction<'_>,
    job: JobId,
    effect: &EffectOutcome,
) -> Result<(), StoreError> {
    execute(
        tx,
        SETTLE_EFFECT,
        &[
            &job.0,
            &effect.key,
            &effect.state.word(),
            &effect.provider_ref,
        ],
    )
    .await?;
    Ok(())
}
