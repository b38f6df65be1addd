//! How a commit changes job rows: the job's own, its follow-ups' and its parent's.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::claim::Fence;
use super::error::StoreError;
use super::job_row::{reason_of, state_of};
use super::sql::{execute, query_opt};
use crate::engine::{Child, Commit, Failure, Next, Record, Skipped};
use crate::job::{Job, JobId, JobState, ReplicaId, WaitReason};
use crate::message::outcome::event_of;

/// The first stage of each pipeline, by name.
pub type FirstStages = BTreeMap<&'static str, &'static str>;

/// The change of the job's row by a commit.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) stage: String,
    state: JobState,
    attempt: i32,
    /// No stage is left: the job succeeds or waits for its follow-ups, depending on its row.
    finish: bool,
    due_in: f64,
    /// This worker publishes the wake-up.
    wake: bool,
    wait: Option<(WaitReason, String, i64)>,
    failure: Option<Failure>,
    children: i32,
    partial: Option<Box<RawValue>>,
}

/// A job row after its change.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) state: JobState,
    pub(super) woken: bool,
    /// The outcome event of this change, if there is one.
    pub(super) event: Option<String>,
}

impl Move {
    pub(super) fn of<C>(job: &Job, commit: &Commit<C>, cause_gone: bool) -> Self {
        let failure = match &commit.record {
            Record::Checkpoint(_) => None,
            Record::Attempt(attempt) => Some(attempt.failure.clone()),
        };
        let here = Self {
            stage: job.stage.clone(),
            state: JobState::Ready,
            attempt: 1,
            finish: false,
            due_in: 0.0,
            wake: false,
            wait: None,
            failure,
            children: i32::try_from(commit.children.len()).unwrap_or(i32::MAX),
            partial: commit.partial.clone(),
        };
        match &commit.next {
            Next::Stage { stage, keep: true } => Self {
                stage: stage.clone(),
                state: JobState::Running,
                ..here
            },
            Next::Stage { stage, keep: false } => Self {
                stage: stage.clone(),
                wake: true,
                ..here
            },
            Next::Finish => Self {
                finish: true,
                state: JobState::Succeeded,
                ..here
            },
            Next::Wait { on, resume_at } => {
                // A wait in the middle of a stage keeps the attempts that were used before it.
                let attempt = if *resume_at == job.stage {
                    job.attempt.0
                } else {
                    1
                };
                let here = Self {
                    stage: resume_at.clone(),
                    attempt,
                    ..here
                };
                if cause_gone {
                    Self { wake: true, ..here }
                } else {
                    let wait = Some((on.reason, on.key.clone(), on.observed));
                    Self {
                        state: JobState::Waiting,
                        wait,
                        ..here
                    }
                }
            }
            Next::Retry {
                after,
                used_attempt,
            } => {
                let attempt = job.attempt.0 + i32::from(*used_attempt);
                Self {
                    attempt,
                    due_in: after.as_secs_f64(),
                    ..here
                }
            }
            Next::Park => Self {
                state: JobState::Parked,
                attempt: job.attempt.0,
                ..here
            },
        }
    }
}

const LOCK: &str = "SELECT id FROM jobs WHERE id = $1 FOR UPDATE";

const ADVANCE: &str = "
    UPDATE jobs SET stage = $4, attempt = $6, committed_epoch = epoch, crash_count = 0, last_progress_at = now(),
        open_children = open_children + $14,
        state = CASE WHEN $7 AND open_children + $14 > 0 THEN 'waiting' ELSE $5 END,
        owner = CASE WHEN $5 = 'running' THEN owner END,
        due_at = now() + $8 * interval '1 second',
        woken_at = CASE WHEN $9 THEN now() WHEN $5 = 'running' THEN woken_at END, woken_by = CASE WHEN $9 THEN $3 ELSE woken_by END,
        wait_reason = CASE WHEN $7 AND open_children + $14 > 0 THEN 'children' ELSE $10 END,
        wait_key = CASE WHEN $7 AND open_children + $14 > 0 THEN 'children' ELSE $11 END,
        wait_observed = $12,
        error_code = ($13::text[])[1], error_message = ($13::text[])[2], error_hint = ($13::text[])[3],
        fingerprint = ($13::text[])[4],
        first_failed_at = CASE WHEN ($13::text[])[1] IS NULL THEN NULL ELSE coalesce(first_failed_at, now()) END,
        finished_at = CASE WHEN $7 AND open_children + $14 = 0 THEN now() END,
        partial = $15, read_again = false
    WHERE id = $1 AND epoch = $2 AND owner = $3 AND state = 'running'
    RETURNING state, wait_reason";

/// Merges kinds into `jobs.skipped`; a kind replaces an earlier value of the same kind. The
/// argument is the SQL of these kinds. If there is nothing to merge, nothing is parsed.
macro_rules! skipped_with {
    ($kinds:literal) => {
        concat!(
            "CASE WHEN ",
            $kinds,
            " IS NULL THEN jobs.skipped WHEN jobs.skipped IS NULL THEN ",
            $kinds,
            " ELSE (jobs.skipped::jsonb || ",
            $kinds,
            "::jsonb)::json END"
        )
    };
}
pub(super) use skipped_with;

const SKIP: &str = concat!(
    "UPDATE jobs SET skipped = ",
    skipped_with!("$2::json"),
    " WHERE id = $1"
);

/// The creator wakes the first follow-ups; the waker wakes the others in fair order among all
/// organizations.
const INSERT_CHILDREN: &str = "
    INSERT INTO jobs (id, pipeline, parent_id, source, dedupe_key, organization, schema, payload, traceparent, tracestate, deadline,
        producer, bytes, state, stage, woken_at, woken_by)
    SELECT child.id, child.pipeline, parent.id, parent.source, child.dedupe_key, parent.organization, 1, child.payload,
        parent.traceparent, parent.tracestate, parent.deadline, parent.producer,
        octet_length(child.payload::text), 'ready', child.stage, CASE WHEN child.number <= $7 THEN now() END,
        CASE WHEN child.number <= $7 THEN $8::bigint END
    FROM jobs parent, unnest($1::uuid[], $2::text[], $3::text[], $4::json[], $5::text[]) WITH ORDINALITY
        AS child (id, pipeline, dedupe_key, payload, stage, number)
    WHERE parent.id = $6";

/// Follow-ups that their creator wakes.
const WOKEN_AT_ONCE: usize = 32;
/// Maximum number of follow-ups of one job.
const CHILDREN_LIMIT: usize = 10_000;

/// Counts some open follow-ups of a parent as done. A parent that waits for nothing else has
/// succeeded.
macro_rules! children_done {
    ($done:literal) => {
        concat!(
            "open_children = greatest(open_children - ",
            $done,
            ", 0), state = CASE WHEN open_children <= ",
            $done,
            " AND wait_reason = 'children' THEN 'succeeded' ELSE state END, finished_at = CASE WHEN open_children <= ",
            $done,
            " AND wait_reason = 'children' THEN now() ELSE finished_at END, wait_key = CASE WHEN open_children <= ",
            $done,
            " AND wait_reason = 'children' THEN NULL ELSE wait_key END, wait_reason = CASE WHEN open_children <= ",
            $done,
            " AND wait_reason = 'children' THEN NULL ELSE wait_reason END, last_progress_at = now()"
        )
    };
}
pub(super) use children_done;

const CHILD_DONE: &str = concat!(
    "UPDATE jobs SET ",
    children_done!("1"),
    " WHERE id = $1 AND open_children > 0 RETURNING state = 'succeeded' AND open_children = 0 AS done"
);

/// Locks a row until the transaction ends.
pub(super) async fn lock(tx: &Transaction<'_>, id: JobId) -> Result<(), StoreError> {
    query_opt(tx, LOCK, &[&id.0]).await?;
    Ok(())
}

/// Changes the job's own row. Returns `None` if the write is fenced.
pub(super) async fn advance(
    tx: &Transaction<'_>,
    fence: &Fence,
    step: &Move,
) -> Result<Option<Moved>, StoreError> {
    let (reason, key, observed) = match &step.wait {
        Some((reason, key, observed)) => (Some(reason.word()), Some(key.as_str()), Some(*observed)),
        None => (None, None, None),
    };
    let failure = step.failure.as_ref().map_or([None; 4], |failure| {
        [
            &failure.code,
            &failure.message,
            &failure.hint,
            &failure.fingerprint,
        ]
        .map(|text| Some(text.as_str()))
    });
    let row = query_opt(
        tx,
        ADVANCE,
        &[
            &fence.job.0,
            &fence.epoch.0,
            &fence.replica.0,
            &step.stage,
            &step.state.word(),
            &step.attempt,
            &step.finish,
            &step.due_in,
            &step.wake,
            &reason,
            &key,
            &observed,
            &failure.as_slice(),
            &step.children,
            &step.partial.as_ref().map(Json),
        ],
    )
    .await?;
    let Some(row) = row else { return Ok(None) };
    let state = state_of(&row)?;
    let event = event_of(state, reason_of(&row)?);
    Ok(Some(Moved {
        state,
        woken: step.wake,
        event,
    }))
}

/// Adds the items that a stage skipped to the row of a job that this transaction has changed.
pub(super) async fn skip(
    tx: &Transaction<'_>,
    job: JobId,
    skipped: &Skipped,
) -> Result<(), StoreError> {
    if !skipped.is_empty() {
        execute(tx, SKIP, &[&job.0, &Json(skipped)]).await?;
    }
    Ok(())
}

/// Inserts a job's follow-ups. Returns those that the creator, `waker`, wakes.
pub(super) async fn insert_children(
    tx: &Transaction<'_>,
    job: &Job,
    waker: ReplicaId,
    children: &[Child],
    first_stages: &FirstStages,
) -> Result<Vec<(JobId, String)>, StoreError> {
    if children.is_empty() {
        return Ok(Vec::new());
    }
    if children.len() > CHILDREN_LIMIT {
        return Err(StoreError::Row(format!(
            "expected at most {CHILDREN_LIMIT} follow-ups of a job, got {}",
            children.len()
        )));
    }
    let ids: Vec<Uuid> = children
        .iter()
        .map(|child| JobId::of_child(job.id, job.generation, &child.target).0)
        .collect();
    let pipelines: Vec<&str> = children.iter().map(|child| child.pipeline).collect();
    let keys: Vec<String> = children
        .iter()
        .map(|child| format!("{}/{}", job.id, child.target))
        .collect();
    let payloads: Vec<Json<&Value>> = children.iter().map(|child| Json(&child.payload)).collect();
    let first = |pipeline: &&str| {
        let first = first_stages.get(pipeline).copied();
        first.ok_or_else(|| StoreError::Row(format!("there is no pipeline `{pipeline}`")))
    };
    let stages: Vec<&str> = pipelines.iter().map(first).collect::<Result<_, _>>()?;
    let woken = i64::try_from(WOKEN_AT_ONCE).unwrap_or(i64::MAX);
    execute(
        tx,
        INSERT_CHILDREN,
        &[
            &ids, &pipelines, &keys, &payloads, &stages, &job.id.0, &woken, &waker.0,
        ],
    )
    .await?;
    Ok(ids
        .into_iter()
        .map(JobId)
        .zip(pipelines.into_iter().map(str::to_owned))
        .take(WOKEN_AT_ONCE)
        .collect())
}

/// Counts one follow-up as done. Returns whether it was the last one and the parent has succeeded.
pub(super) async fn child_done(tx: &Transaction<'_>, parent: JobId) -> Result<bool, StoreError> {
    match query_opt(tx, CHILD_DONE, &[&parent.0]).await? {
        Some(row) => Ok(row.try_get("done")?),
        None => Ok(false),
    }
}
