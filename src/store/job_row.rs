//! A job's row as people read it, and the columns of it that several statements return.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::error::StoreError;
use crate::job::{JobId, JobState, UnknownWord, WaitReason};
use crate::message::outcome::Skipped;

/// A job's row, as commands print it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
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
    /// Schema version of its input.
    pub schema: i64,
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
    #[schemars(with = "String")]
    pub due_at: OffsetDateTime,
    /// When a wake-up was last published.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub woken_at: Option<OffsetDateTime>,
    /// When a commit last changed it.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub last_progress_at: OffsetDateTime,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub finished_at: Option<OffsetDateTime>,
    /// The job must be done by this time.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub deadline: Option<OffsetDateTime>,
    /// The database's clock when the row was read.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub now: OffsetDateTime,
    /// Whether the owner's lease is valid.
    pub owner_alive: bool,
    /// Consecutive takeovers without a commit.
    pub crash_count: i32,
    /// The items that its stages skipped.
    pub skipped: Option<Skipped>,
}

impl JobRow {
    /// Returns why it waits, if this version knows the reason; a newer worker may have written it.
    #[must_use]
    pub fn wait_reason(&self) -> Option<WaitReason> {
        self.wait_reason.as_deref()?.parse().ok()
    }
}

/// The columns of a [`JobRow`] from `jobs j`. A macro, so that each statement is one constant
/// text.
macro_rules! job_columns {
    () => {
        "j.id, j.pipeline, j.parent_id, j.organization, j.source, j.dedupe_key, j.schema, j.state, j.stage, j.attempt, j.generation, j.epoch,
        j.owner, j.wait_reason, j.wait_key, j.open_children, j.error_code, j.error_message, j.error_hint, j.due_at, j.woken_at,
        j.last_progress_at, j.created_at, j.finished_at, j.deadline, j.crash_count, j.skipped, now() AS now,
        EXISTS (SELECT 1 FROM replicas r WHERE r.id = j.owner AND r.ended_at IS NULL AND r.alive_until > now()) AS owner_alive"
    };
}
pub(super) use job_columns;

pub(super) fn job_row(row: &Row) -> Result<JobRow, StoreError> {
    Ok(JobRow {
        id: JobId(row.try_get("id")?),
        pipeline: row.try_get("pipeline")?,
        parent: row.try_get::<_, Option<Uuid>>("parent_id")?.map(JobId),
        organization: row.try_get("organization")?,
        source: row.try_get("source")?,
        dedupe_key: row.try_get("dedupe_key")?,
        schema: row.try_get("schema")?,
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

pub(super) fn state_of(row: &Row) -> Result<JobState, StoreError> {
    let word: &str = row.try_get("state")?;
    word.parse()
        .map_err(|error: UnknownWord| StoreError::Row(error.to_string()))
}

/// Returns why a row waits, if it does.
pub(super) fn reason_of(row: &Row) -> Result<Option<WaitReason>, StoreError> {
    let word: Option<&str> = row.try_get("wait_reason")?;
    word.map(str::parse)
        .transpose()
        .map_err(|error: UnknownWord| StoreError::Row(error.to_string()))
}
