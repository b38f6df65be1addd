//! Plain commits: a checkpoint, and the next stage or the end of the job. One statement writes
//! many of them.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::advance::advance_jobs;
use super::announcements::{self, Announcement};
use super::claim::Fence;
use super::error::StoreError;
use super::job_row::state_of;
use super::run::Run;
use crate::engine::{Commit, Next, Record, Skipped};
use crate::job::{JobId, JobState};

/// A commit of a stage without effects, changes and follow-ups.
#[derive(Debug)]
pub(super) struct PlainCommit {
    fence: Fence,
    done: &'static str,
    /// The next stage; the finished one if it was the last.
    pub(super) due: String,
    version: i32,
    pub(super) output: Box<RawValue>,
    attempt: i32,
    took: Duration,
    finish: bool,
    skipped: Option<Skipped>,
}

/// Result of a plain commit.
#[derive(Debug)]
pub(super) struct PlainDone {
    pub(super) state: JobState,
    pub(super) announcement: Option<Announcement>,
}

/// Advances the jobs of a group and stores their checkpoints; a row that is fenced gets none.
pub(super) const PLAIN: &str = concat!(
    "WITH fence AS (",
    advance_jobs!(
        "SELECT id, epoch, replica, due AS stage, CASE WHEN finish THEN 'succeeded' ELSE 'running' END AS state, 1 AS attempt,
        finish, NULL::float8 AS due_in, false AS wake, NULL::text AS wait_reason, NULL::text AS wait_key,
        NULL::bigint AS wait_observed, NULL::text[] AS failure, 0 AS children, NULL::json AS partial, skipped,
        done, version, output, attempt AS tried, took
        FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::int[], $7::json[], $8::int[],
            $9::float8[], $10::bool[], $11::json[])
            AS given (id, epoch, replica, done, due, version, output, attempt, took, finish, skipped)"
    ),
    "
        RETURNING jobs.id, jobs.generation, jobs.epoch, jobs.state, step.replica, step.done, step.version, step.output,
            step.tried, step.took
    ), saved AS (
        INSERT INTO checkpoints (job_id, generation, stage, version, output, epoch, attempt, replica, started_at)
        SELECT id, generation, done, version, output, epoch, tried, replica, now() - took * interval '1 second' FROM fence
    )
    SELECT id, state FROM fence"
);

impl PlainCommit {
    /// Returns `commit` as a plain commit, if it is one.
    pub(super) fn of<C>(run: Run<'_>, commit: &Commit<C>) -> Option<Self> {
        let bare = commit.effect.is_none()
            && commit.leftover.is_none()
            && commit.changes.is_none()
            && commit.children.is_empty();
        let Record::Checkpoint(checkpoint) = &commit.record else {
            return None;
        };
        let (due, finish) = match &commit.next {
            Next::Stage { stage, keep: true } => (stage.clone(), false),
            // The end of a follow-up is counted in its parent's row, so it is not a plain commit.
            Next::Finish if run.job.parent.is_none() => (run.job.stage.clone(), true),
            Next::Stage { .. }
            | Next::Finish
            | Next::Wait { .. }
            | Next::Retry { .. }
            | Next::Park => return None,
        };
        let output = checkpoint.output.clone().filter(|_| bare)?;
        let (done, version, attempt) = (checkpoint.stage, checkpoint.version, run.job.attempt.0);
        let skipped = (!commit.skipped.is_empty()).then(|| commit.skipped.clone());
        Some(Self {
            fence: *run.fence,
            done,
            due,
            version,
            output,
            attempt,
            took: run.took,
            finish,
            skipped,
        })
    }

    /// Returns whether the commit ends the job.
    pub(super) const fn finishes(&self) -> bool {
        self.finish
    }

    pub(super) const fn job(&self) -> JobId {
        self.fence.job
    }
}

/// The columns of [`PLAIN`]'s parameters.
pub(super) struct PlainCommits<'a> {
    ids: Vec<Uuid>,
    epochs: Vec<i64>,
    replicas: Vec<i64>,
    done: Vec<&'a str>,
    due: Vec<&'a str>,
    versions: Vec<i32>,
    outputs: Vec<Json<&'a RawValue>>,
    attempts: Vec<i32>,
    took: Vec<f64>,
    finish: Vec<bool>,
    skipped: Vec<Option<Json<&'a Skipped>>>,
}

impl<'a> PlainCommits<'a> {
    pub(super) fn of(commits: impl Iterator<Item = &'a PlainCommit> + Clone) -> Self {
        Self {
            ids: commits.clone().map(|one| one.fence.job.0).collect(),
            epochs: commits.clone().map(|one| one.fence.epoch.0).collect(),
            replicas: commits.clone().map(|one| one.fence.replica.0).collect(),
            done: commits.clone().map(|one| one.done).collect(),
            due: commits.clone().map(|one| one.due.as_str()).collect(),
            versions: commits.clone().map(|one| one.version).collect(),
            outputs: commits.clone().map(|one| Json(&*one.output)).collect(),
            attempts: commits.clone().map(|one| one.attempt).collect(),
            took: commits.clone().map(|one| one.took.as_secs_f64()).collect(),
            finish: commits.clone().map(|one| one.finish).collect(),
            skipped: commits.map(|one| one.skipped.as_ref().map(Json)).collect(),
        }
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 11] {
        [
            &self.ids,
            &self.epochs,
            &self.replicas,
            &self.done,
            &self.due,
            &self.versions,
            &self.outputs,
            &self.attempts,
            &self.took,
            &self.finish,
            &self.skipped,
        ]
    }
}

/// Returns the result of each of `commits`, from the rows that [`PLAIN`] updated and the events of
/// those that ended. `None` if the commit is fenced.
pub(super) fn done<'a>(
    commits: impl Iterator<Item = &'a PlainCommit>,
    moved: &[Row],
    announced: &[Row],
) -> Result<Vec<Result<Option<PlainDone>, StoreError>>, StoreError> {
    let mut events = HashMap::with_capacity(announced.len());
    for row in announced {
        events.insert(
            row.try_get::<_, Uuid>("job_id")?,
            announcements::announcement(row)?,
        );
    }
    let mut rows = HashMap::with_capacity(moved.len());
    for row in moved {
        rows.insert(row.try_get::<_, Uuid>("id")?, row);
    }
    let mut done = |one: &PlainCommit| {
        let Some(row) = rows.get(&one.fence.job.0) else {
            return Ok(None);
        };
        Ok(Some(PlainDone {
            state: state_of(row)?,
            announcement: events.remove(&one.fence.job.0),
        }))
    };
    Ok(commits.map(&mut done).collect())
}
