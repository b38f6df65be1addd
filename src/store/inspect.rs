//! Reads jobs for people: one job's row, or its whole history.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::Store;
use super::error::StoreError;
use super::listing::JobFilter;
use super::sql::{query, query_opt};
use crate::job::{JobId, JobState, WaitReason};
use crate::message::outcome::Skipped;

/// Maximum number of follow-ups that are shown with their job; `jobs list --parent` shows all of
/// them.
const FOLLOW_UPS: i64 = 1000;

/// A job's row, as commands print it.
#[derive(Debug, Clone, Serialize)]
pub struct JobRow {
    /// Its id.
    pub id: JobId,
    /// Its pipeline.
    pub pipeline: String,
    /// The job that made it.
    pub parent: Option<JobId>,
    /// The tenant.
    pub organization: String,
    /// The producer.
    pub source: String,
    /// Its key.
    pub dedupe_key: String,
    /// Its state.
    pub state: JobState,
    /// The current stage.
    pub stage: String,
    /// Attempt of the current stage, from 1.
    pub attempt: i32,
    /// Raised by `configure` and by a re-run.
    pub generation: i32,
    /// Raised by every claim and every action.
    pub epoch: i64,
    /// The replica that owns it.
    pub owner: Option<i64>,
    /// Why it waits.
    pub wait_reason: Option<String>,
    /// The key of what it waits for.
    pub wait_key: Option<String>,
    /// Number of follow-ups that are not done.
    pub open_children: i32,
    /// Code of the last failure.
    pub error_code: Option<String>,
    /// Message of the last failure.
    pub error_message: Option<String>,
    /// How a person can resolve the last failure.
    pub error_hint: Option<String>,
    /// The job does not run before this time.
    #[serde(with = "time::serde::rfc3339")]
    pub due_at: OffsetDateTime,
    /// When a wake-up was last published.
    #[serde(with = "time::serde::rfc3339::option")]
    pub woken_at: Option<OffsetDateTime>,
    /// When a commit last changed it.
    #[serde(with = "time::serde::rfc3339")]
    pub last_progress_at: OffsetDateTime,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// The job must be done by this time.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deadline: Option<OffsetDateTime>,
    /// The database's clock when the row was read.
    #[serde(with = "time::serde::rfc3339")]
    pub now: OffsetDateTime,
    /// Whether the owner's lease is valid.
    pub owner_alive: bool,
    /// Consecutive takeovers without a commit.
    pub crash_count: i32,
    /// The items that its stages skipped.
    pub skipped: Option<Skipped>,
}

/// A checkpoint, as commands print it.
#[derive(Debug, Clone, Serialize)]
pub struct CheckpointRow {
    /// The job's generation.
    pub generation: i32,
    /// The stage.
    pub stage: String,
    /// The attempt that succeeded.
    pub attempt: i32,
    /// The replica that ran it.
    pub replica: i64,
    /// How long it ran.
    pub duration_ms: i64,
    /// When it was committed.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
    /// The stored output.
    pub output: Value,
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, Serialize)]
pub struct AttemptRow {
    /// The job's generation.
    pub generation: i32,
    /// The stage.
    pub stage: String,
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// `retried`, `parked` or `waited`.
    pub outcome: String,
    /// Stable error code.
    pub error_code: String,
    /// The chain of causes.
    pub message: String,
    /// How long it ran.
    pub duration_ms: i64,
    /// The replica.
    pub replica: i64,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// An entry of the ledger of effects.
#[derive(Debug, Clone, Serialize)]
pub struct EffectRow {
    /// The idempotency key.
    pub key: String,
    /// The stage.
    pub stage: String,
    /// The target of the effect.
    pub target: String,
    /// Class of the effect: K1, K2 or K3.
    pub class: String,
    /// `in_flight`, `confirmed`, `failed` or `unknown`.
    pub state: String,
    /// How often a duplicate became possible.
    pub unknowns: i32,
    /// The provider's id of what was created.
    pub provider_ref: Option<String>,
}

/// A job with its whole history.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    /// Its row.
    #[serde(flatten)]
    pub row: JobRow,
    /// In the order of their ends.
    pub checkpoints: Vec<CheckpointRow>,
    /// In the order of their times.
    pub attempts: Vec<AttemptRow>,
    /// In the order of their first intents.
    pub effects: Vec<EffectRow>,
    /// Its newest follow-ups.
    pub children: Vec<JobRow>,
}

/// The columns of a [`JobRow`] from `jobs j`. A macro, so that each statement is one constant
/// text.
macro_rules! job_columns {
    () => {
        "j.id, j.pipeline, j.parent_id, j.organization, j.source, j.dedupe_key, j.state, j.stage, j.attempt, j.generation, j.epoch,
        j.owner, j.wait_reason, j.wait_key, j.open_children, j.error_code, j.error_message, j.error_hint, j.due_at, j.woken_at,
        j.last_progress_at, j.created_at, j.finished_at, j.deadline, j.crash_count, j.skipped, now() AS now,
        EXISTS (SELECT 1 FROM replicas r WHERE r.id = j.owner AND r.ended_at IS NULL AND r.alive_until > now()) AS owner_alive"
    };
}
pub(super) use job_columns;

pub(super) const SHOW: &str = concat!("SELECT ", job_columns!(), " FROM jobs j WHERE j.id = $1");
pub(super) const BY_KEY: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM jobs j JOIN job_keys k ON k.job_id = j.id WHERE k.source = $1 AND k.dedupe_key = $2"
);
pub(super) const CHECKPOINTS: &str = "
    SELECT generation, stage, attempt, replica, (extract(epoch FROM finished_at - started_at) * 1000)::bigint AS duration_ms,
        finished_at, output
    FROM checkpoints WHERE job_id = $1 ORDER BY generation, finished_at, stage";
pub(super) const ATTEMPTS: &str = "
    SELECT generation, stage, attempt, outcome, error_code, message, duration_ms, replica, at FROM attempts
    WHERE job_id = $1 ORDER BY at";
pub(super) const EFFECTS: &str = "
    SELECT key, stage, target, class, state, unknowns, provider_ref FROM effects WHERE job_id = $1 ORDER BY first_intent_at";
/// Reads every job. For the demo only, whose database is small: nothing that runs in a loop or
/// behind a command uses it.
const COUNTS: &str = "SELECT pipeline, state, wait_reason, count(*) AS jobs FROM jobs GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

impl Store {
    /// Returns one job's row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job(&self, id: JobId) -> Result<Option<JobRow>, StoreError> {
        query_opt(&self.client().await?, SHOW, &[&id.0])
            .await?
            .as_ref()
            .map(job_row)
            .transpose()
    }

    /// Returns one job's row, by its producer's key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_by_key(
        &self,
        source: &str,
        dedupe_key: &str,
    ) -> Result<Option<JobRow>, StoreError> {
        query_opt(&self.client().await?, BY_KEY, &[&source, &dedupe_key])
            .await?
            .as_ref()
            .map(job_row)
            .transpose()
    }

    /// Returns one job with its whole history.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_view(&self, id: JobId) -> Result<Option<JobView>, StoreError> {
        let Some(row) = self.job(id).await? else {
            return Ok(None);
        };
        let client = self.client().await?;
        let checkpoints = query(&client, CHECKPOINTS, &[&id.0])
            .await?
            .iter()
            .map(checkpoint_row)
            .collect::<Result<_, _>>()?;
        let attempts = query(&client, ATTEMPTS, &[&id.0])
            .await?
            .iter()
            .map(attempt_row)
            .collect::<Result<_, _>>()?;
        let effects = query(&client, EFFECTS, &[&id.0])
            .await?
            .iter()
            .map(effect_row)
            .collect::<Result<_, _>>()?;
        drop(client);
        let children = self
            .jobs(&JobFilter {
                parent: Some(id),
                limit: FOLLOW_UPS,
                ..JobFilter::default()
            })
            .await?
            .jobs;
        Ok(Some(JobView {
            row,
            checkpoints,
            attempts,
            effects,
            children,
        }))
    }

    /// Counts the jobs by pipeline, state and wait reason. Reads every job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_counts(
        &self,
    ) -> Result<Vec<(String, JobState, Option<String>, i64)>, StoreError> {
        let rows = query(&self.client().await?, COUNTS, &[]).await?;
        rows.iter()
            .map(|row| {
                Ok((
                    row.try_get("pipeline")?,
                    state_of(row)?,
                    row.try_get("wait_reason")?,
                    row.try_get("jobs")?,
                ))
            })
            .collect()
    }
}

pub(super) fn state_of(row: &Row) -> Result<JobState, StoreError> {
    let word: &str = row.try_get("state")?;
    word.parse()
        .map_err(|error: crate::job::UnknownWord| StoreError::Row(error.to_string()))
}

/// Returns why a row waits, if it does.
pub(super) fn reason_of(row: &Row) -> Result<Option<WaitReason>, StoreError> {
    let word: Option<&str> = row.try_get("wait_reason")?;
    word.map(str::parse)
        .transpose()
        .map_err(|error: crate::job::UnknownWord| StoreError::Row(error.to_string()))
}

pub(super) fn job_row(row: &Row) -> Result<JobRow, StoreError> {
    Ok(JobRow {
        id: JobId(row.try_get("id")?),
        pipeline: row.try_get("pipeline")?,
        parent: row.try_get::<_, Option<Uuid>>("parent_id")?.map(JobId),
        organization: row.try_get("organization")?,
        source: row.try_get("source")?,
        dedupe_key: row.try_get("dedupe_key")?,
        state: state_of(row)?,
        stage: row.try_get("stage")?,
        attempt: row.try_get("attempt")?,
        generation: row.try_get("generation")?,
        epoch: row.try_get("epoch")?,
        owner: row.try_get("owner")?,
        wait_reason: row.try_get("wait_reason")?,
        wait_key: row.try_get("wait_key")?,
        open_children: row.try_get("open_children")?,
        error_code: row.try_get("error_code")?,
        error_message: row.try_get("error_message")?,
        error_hint: row.try_get("error_hint")?,
        due_at: row.try_get("due_at")?,
        woken_at: row.try_get("woken_at")?,
        last_progress_at: row.try_get("last_progress_at")?,
        created_at: row.try_get("created_at")?,
        finished_at: row.try_get("finished_at")?,
        deadline: row.try_get("deadline")?,
        now: row.try_get("now")?,
        owner_alive: row.try_get("owner_alive")?,
        crash_count: row.try_get("crash_count")?,
        skipped: row
            .try_get::<_, Option<Json<Skipped>>>("skipped")?
            .map(|Json(skipped)| skipped),
    })
}

fn checkpoint_row(row: &Row) -> Result<CheckpointRow, StoreError> {
    let Json(output) = row.try_get::<_, Json<Value>>("output")?;
    Ok(CheckpointRow {
        generation: row.try_get("generation")?,
        stage: row.try_get("stage")?,
        attempt: row.try_get("attempt")?,
        replica: row.try_get("replica")?,
        duration_ms: row.try_get("duration_ms")?,
        finished_at: row.try_get("finished_at")?,
        output,
    })
}

fn attempt_row(row: &Row) -> Result<AttemptRow, StoreError> {
    Ok(AttemptRow {
        generation: row.try_get("generation")?,
        stage: row.try_get("stage")?,
        attempt: row.try_get("attempt")?,
        outcome: row.try_get("outcome")?,
        error_code: row.try_get("error_code")?,
        message: row.try_get("message")?,
        duration_ms: row.try_get("duration_ms")?,
        replica: row.try_get("replica")?,
        at: row.try_get("at")?,
    })
}

fn effect_row(row: &Row) -> Result<EffectRow, StoreError> {
    Ok(EffectRow {
        key: row.try_get("key")?,
        stage: row.try_get("stage")?,
        target: row.try_get("target")?,
        class: row.try_get("class")?,
        state: row.try_get("state")?,
        unknowns: row.try_get("unknowns")?,
        provider_ref: row.try_get("provider_ref")?,
    })
}
