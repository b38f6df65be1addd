//! Reads a timeline: each part by the key of the job, and bounded.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::super::audit_rows::AuditFilter;
use super::super::error::StoreError;
use super::super::handle::Store;
use super::super::job_row::JobRow;
use super::super::sql::query;
use super::facts::{Facts, Run, Span, SpanKind};
use super::follow_ups::{FollowUps, follow_ups};
use super::marks::{ActionMark, EffectMark, EndMark, effects, ends};
use super::spans::spans;
use crate::job::JobId;

/// Maximum number of checkpoints that are read.
const CHECKPOINT_ROWS: i64 = 200;
/// Maximum number of attempts that are read.
const ATTEMPT_ROWS: i64 = 400;
/// Maximum number of effects that are read.
const EFFECT_ROWS: i64 = 200;
/// Maximum number of rows of the audit log that are read.
const ACTION_ROWS: i64 = 200;
/// Maximum number of replicas whose ends are read.
const REPLICA_ROWS: i64 = 200;

/// The course of a job.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Timeline {
    /// The job.
    pub job: JobRow,
    /// The end of the job, or now.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub until: OffsetDateTime,
    /// What it did and waited for, without a gap from its acceptance to `until`.
    pub spans: Vec<Span>,
    /// Its effects, oldest first.
    pub effects: Vec<EffectMark>,
    /// What people did, oldest first.
    pub actions: Vec<ActionMark>,
    /// The ends of replicas that ran it.
    pub ends: Vec<EndMark>,
    /// Its follow-ups.
    pub follow_ups: FollowUps,
    /// Whether only the newest rows of a table were read.
    pub is_cut: bool,
}

/// `$2` checkpoints at most, the newest.
pub(crate) const CHECKPOINTS: &str = "
    SELECT generation, stage, attempt, replica, epoch, started_at, finished_at FROM checkpoints
    WHERE job_id = $1 ORDER BY finished_at DESC, generation DESC LIMIT $2";

/// `$2` attempts at most, the newest.
pub(crate) const ATTEMPTS: &str = "
    SELECT generation, stage, attempt, replica, epoch, outcome, error_code, at - duration_ms * interval '1 millisecond' AS began, at
    FROM attempts WHERE job_id = $1 ORDER BY at DESC LIMIT $2";

impl Store {
    /// Returns the course of a job: at most 200 checkpoints, 400 attempts, 200 effects and 200
    /// actions, the newest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn timeline(&self, id: JobId) -> Result<Option<Timeline>, StoreError> {
        let Some(row) = self.job(id).await? else {
            return Ok(None);
        };
        let of_job = AuditFilter {
            job: Some(id),
            ..AuditFilter::default()
        };
        let audit = self.audit_rows(&of_job, None, ACTION_ROWS).await?;
        let client = self.client().await?;
        let done = query(&client, CHECKPOINTS, &[&id.0, &CHECKPOINT_ROWS]).await?;
        let failed = query(&client, ATTEMPTS, &[&id.0, &ATTEMPT_ROWS]).await?;
        let effects = effects(&client, id, EFFECT_ROWS).await?;
        let is_full = |rows: usize, limit: i64| i64::try_from(rows).is_ok_and(|n| n >= limit);
        let runs_cut = is_full(done.len(), CHECKPOINT_ROWS) || is_full(failed.len(), ATTEMPT_ROWS);
        let runs = done
            .iter()
            .map(checkpoint)
            .chain(failed.iter().map(attempt));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        let replicas: BTreeSet<i64> = runs.iter().map(|run| run.replica).collect();
        let replicas: Vec<i64> = replicas.into_iter().rev().collect();
        let facts = Facts {
            runs,
            actions: audit.rows.into_iter().rev().map(ActionMark::of).collect(),
            ends: ends(&client, id, &replicas, REPLICA_ROWS).await?,
            is_cut: runs_cut,
            row,
        };
        let (effects_cut, actions_cut) = (
            is_full(effects.len(), EFFECT_ROWS),
            is_full(facts.actions.len(), ACTION_ROWS),
        );
        Ok(Some(Timeline {
            until: facts.until(),
            spans: spans(&facts),
            effects,
            follow_ups: follow_ups(&client, id).await?,
            is_cut: runs_cut || effects_cut || actions_cut,
            job: facts.row,
            actions: facts.actions,
            ends: facts.ends,
        }))
    }
}

fn checkpoint(row: &Row) -> Result<Run, StoreError> {
    let replica: i64 = row.try_get("replica")?;
    Ok(Run {
        kind: if replica == 0 {
            SpanKind::ByHand
        } else {
            SpanKind::Stage
        },
        generation: row.try_get("generation")?,
        stage: row.try_get("stage")?,
        attempt: row.try_get("attempt")?,
        replica,
        epoch: row.try_get("epoch")?,
        from: row.try_get("started_at")?,
        until: row.try_get("finished_at")?,
        code: None,
    })
}

fn attempt(row: &Row) -> Result<Run, StoreError> {
    let outcome: &str = row.try_get("outcome")?;
    Ok(Run {
        kind: match outcome {
            "retried" => SpanKind::Retried,
            "waited" => SpanKind::Waited,
            _ => SpanKind::Failed,
        },
        generation: row.try_get("generation")?,
        stage: row.try_get("stage")?,
        attempt: row.try_get("attempt")?,
        replica: row.try_get("replica")?,
        epoch: row.try_get("epoch")?,
        from: row.try_get("began")?,
        until: row.try_get("at")?,
        code: Some(row.try_get("error_code")?),
    })
}
