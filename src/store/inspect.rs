//! Reads jobs for people: one job's row, or its whole history.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::actions::Target;
use super::error::StoreError;
use super::handle::Store;
use super::job_filter::JobFilter;
use super::job_row::{JobRow, job_columns, job_row, state_of};
use super::sql::{query, query_opt};
use crate::job::{JobId, JobState};

/// Maximum number of follow-ups that are shown with their job; `jobs list --parent` shows all of
/// them.
const FOLLOW_UPS: i64 = 1000;

/// A checkpoint, as commands print it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
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
    #[schemars(with = "String")]
    pub finished_at: OffsetDateTime,
    /// The stored output.
    pub output: Value,
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
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
    #[schemars(with = "String")]
    pub at: OffsetDateTime,
}

/// An entry of the ledger of effects.
#[derive(Debug, Clone, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, Serialize, JsonSchema)]
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

    /// Returns the row of the job that an action is for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_of(&self, target: &Target) -> Result<Option<JobRow>, StoreError> {
        match target {
            Target::Id(id) | Target::Version { id, .. } => self.job(*id).await,
            Target::Key { source, dedupe_key } => self.job_by_key(source, dedupe_key).await,
        }
    }

    /// Returns the checkpoints of a job, of all generations.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn checkpoints(&self, id: JobId) -> Result<Vec<CheckpointRow>, StoreError> {
        query(&self.client().await?, CHECKPOINTS, &[&id.0])
            .await?
            .iter()
            .map(checkpoint_row)
            .collect()
    }

    /// Returns one job with its whole history.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_view(&self, id: JobId) -> Result<Option<JobView>, StoreError> {
        let Some(row) = self.job(id).await? else {
            return Ok(None);
        };
        let checkpoints = self.checkpoints(id).await?;
        let client = self.client().await?;
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
