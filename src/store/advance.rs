//! How a commit advances a job: its row moves to the next stage, to a wait or to an end.

use deadpool_postgres::Transaction;
use serde_json::value::RawValue;
use tokio_postgres::types::Json;

use super::claim::Fence;
use super::error::StoreError;
use super::job_row::{reason_of, state_of};
use super::sql::query_opt;
use crate::engine::{Commit, Failure, Next, Record, Skipped};
use crate::fault::WaitOn;
use crate::job::{Job, JobState, WaitReason};
use crate::message::outcome::event_of;

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
    skipped: Option<Skipped>,
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
            skipped: (!commit.skipped.is_empty()).then(|| commit.skipped.clone()),
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
            Next::Wait { on, resume_at } => here.waiting(job, on, resume_at, cause_gone),
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

    fn waiting(self, job: &Job, on: &WaitOn, resume_at: &str, cause_gone: bool) -> Self {
        let here = Self {
            // A wait in the middle of a stage keeps the attempts that were used before it.
            attempt: if resume_at == job.stage {
                job.attempt.0
            } else {
                1
            },
            stage: resume_at.to_owned(),
            ..self
        };
        if cause_gone {
            Self { wake: true, ..here }
        } else {
            Self {
                state: JobState::Waiting,
                wait: Some((on.reason, on.key.clone(), on.observed)),
                ..here
            }
        }
    }
}

/// Advances jobs: the definition for a single commit ([`ADVANCE`]) and for a group of plain ones
/// (`PLAIN`). Its argument is a query with a row for each job: `id`, `epoch` and `replica` of its
/// fence, and the next `stage`, `attempt`, `state` and so on. `finish` replaces the state by a wait
/// if follow-ups are open. Without `due_in`, the job keeps the time when it was due; `skipped` is
/// merged into what earlier stages skipped, and a kind replaces an earlier value of the same kind.
///
/// The fence: a row that has another owner or epoch is left as it is. The condition on the state
/// matches no partial index, so that rows are found by their keys whatever the planner knows of the
/// table.
macro_rules! advance_jobs {
    ($steps:literal) => {
        concat!(
            "
    UPDATE jobs SET stage = step.stage, attempt = step.attempt, committed_epoch = jobs.epoch, crash_count = 0,
        last_progress_at = now(), open_children = jobs.open_children + step.children,
        state = CASE WHEN step.finish AND jobs.open_children + step.children > 0 THEN 'waiting' ELSE step.state END,
        owner = CASE WHEN step.state = 'running' THEN jobs.owner END,
        due_at = coalesce(now() + step.due_in * interval '1 second', jobs.due_at),
        woken_at = CASE WHEN step.wake THEN now() WHEN step.state = 'running' THEN jobs.woken_at END,
        woken_by = CASE WHEN step.wake THEN step.replica ELSE jobs.woken_by END,
        wait_reason = CASE WHEN step.finish AND jobs.open_children + step.children > 0 THEN 'children' ELSE step.wait_reason END,
        wait_key = CASE WHEN step.finish AND jobs.open_children + step.children > 0 THEN 'children' ELSE step.wait_key END,
        wait_observed = step.wait_observed,
        error_code = step.failure[1], error_message = step.failure[2], error_hint = step.failure[3],
        fingerprint = step.failure[4],
        first_failed_at = CASE WHEN step.failure[1] IS NULL THEN NULL ELSE coalesce(jobs.first_failed_at, now()) END,
        finished_at = CASE WHEN step.finish AND jobs.open_children + step.children = 0 THEN now() END,
        partial = step.partial, read_again = false,
        skipped = CASE WHEN step.skipped IS NULL THEN jobs.skipped WHEN jobs.skipped IS NULL THEN step.skipped
            ELSE (jobs.skipped::jsonb || step.skipped::jsonb)::json END
    FROM (",
            $steps,
            ") AS step
    WHERE jobs.id = step.id AND jobs.epoch = step.epoch AND jobs.owner = step.replica AND jobs.state || '' = 'running'"
        )
    };
}
pub(super) use advance_jobs;

const ADVANCE: &str = concat!(
    advance_jobs!(
        "SELECT $1::uuid AS id, $2::bigint AS epoch, $3::bigint AS replica, $4::text AS stage, $5::text AS state,
        $6::int AS attempt, $7::bool AS finish, $8::float8 AS due_in, $9::bool AS wake, $10::text AS wait_reason,
        $11::text AS wait_key, $12::bigint AS wait_observed, $13::text[] AS failure, $14::int AS children,
        $15::json AS partial, $16::json AS skipped"
    ),
    "
    RETURNING jobs.state, jobs.wait_reason"
);

/// Advances the job. Returns `None` if the write is fenced.
pub(super) async fn advance(
    tx: &Transaction<'_>,
    fence: &Fence,
    step: &Move,
) -> Result<Option<Moved>, StoreError> {
    let (reason, key, observed) = match &step.wait {
        Some((reason, key, observed)) => (Some(reason.word()), Some(key.as_str()), Some(*observed)),
        None => (None, None, None),
    };
    let failure = step.failure.as_ref().map(|failure| {
        [
            &failure.code,
            &failure.message,
            &failure.hint,
            &failure.fingerprint,
        ]
        .map(String::as_str)
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
            &failure.as_ref().map(<[_; 4]>::as_slice),
            &step.children,
            &step.partial.as_ref().map(Json),
            &step.skipped.as_ref().map(Json),
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
