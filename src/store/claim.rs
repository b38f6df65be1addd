//! Claims of jobs. A wake-up claims the row of its job, a group of them in one statement. `intake`
//! inserts rows, and what it claims in the same statement becomes a claim here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::new_job::{Incoming, NewJob};
use super::sql::query;
use crate::engine::{Checkpoint, Outputs};
use crate::job::{Attempt, Epoch, Generation, Job, JobId, ReplicaId};

/// The permission to write for a running job. Only a claim creates one; a write with an outdated
/// fence is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub(super) job: JobId,
    pub(super) epoch: Epoch,
    pub(super) replica: ReplicaId,
}

impl Fence {
    /// Returns the job.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.job
    }
}

/// A job that this replica has claimed.
#[derive(Debug)]
pub struct Claim {
    /// The job as stored.
    pub job: Job,
    /// The outputs of its finished stages.
    pub outputs: Outputs,
    /// Required by every write.
    pub fence: Fence,
    /// The job's deadline on this process's monotonic clock, if it has one.
    pub deadline: Option<Instant>,
    /// The sealed payload of a job whose schema was unknown when it arrived.
    pub sealed_payload: Option<String>,
    /// Whether owners have died while running the job. A replica runs one such job at a time, so
    /// that the next death shows whether the job caused it.
    pub is_suspect: bool,
    /// W3C `tracestate` of the job.
    pub tracestate: Option<String>,
    /// Data that earlier runs of the current stage have fetched, see [`crate::engine::Kept`].
    pub partial: Option<Box<RawValue>>,
    /// See [`crate::engine::Partial::read_again`].
    pub read_again: bool,
}

impl Claim {
    /// Returns whether the job's deadline has passed.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// Consecutive owners that die without a commit before a job is a suspect.
pub(super) const SUSPECT_AFTER: i32 = 2;
/// Consecutive owners that die without a commit before a job is parked.
pub(super) const CRASHES: i32 = 5;

/// Result of a wake-up.
#[derive(Debug)]
pub enum Claimed {
    /// This replica owns the job now.
    Ours(Box<Claim>),
    /// The job was not claimed: there is nothing to do.
    Not(NotClaimed),
}

/// Why a wake-up claimed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotClaimed {
    /// There is no such row, for example in a restored database.
    NoRow,
    /// The job is finished, waiting, parked, not due yet, or owned.
    NotDue,
    /// The lease of this replica has ended: it must not claim.
    LeaseLost,
}

/// The condition on the state matches no partial index, for the reason given at
/// `batched_commit::PLAIN`.
pub(super) const CLAIM: &str = "
    UPDATE jobs SET state = 'running', owner = asked.replica, epoch = epoch + 1, woken_at = coalesce(woken_at, now())
    FROM unnest($1::uuid[], $2::bigint[]) AS asked (id, replica)
        JOIN replicas ON replicas.id = asked.replica AND replicas.alive_until > now() AND replicas.ended_at IS NULL
    WHERE jobs.id = asked.id AND jobs.state || '' = 'ready' AND jobs.due_at <= now()
    RETURNING jobs.id, pipeline, parent_id, source, organization, account, payload, sealed_payload, generation, epoch, stage,
        attempt, deadline, traceparent, tracestate, owner, committed_epoch, crash_count, partial, read_again,
        extract(epoch FROM deadline - now())::float8 AS deadline_in";

const OWNED: &str = "
    SELECT id, pipeline, parent_id, source, organization, account, payload, sealed_payload, generation, epoch, stage, attempt,
        deadline, traceparent, tracestate, owner, committed_epoch, crash_count, partial, read_again,
        extract(epoch FROM deadline - now())::float8 AS deadline_in
    FROM jobs WHERE id = $1 AND owner = $2 AND state = 'running' FOR UPDATE";

const WHY_NOT: &str = "
    SELECT asked.id, jobs.id IS NOT NULL AS row, coalesce(jobs.state = 'ready' AND jobs.due_at <= now(), false) AS due,
        EXISTS (SELECT 1 FROM replicas WHERE replicas.id = asked.replica AND alive_until > now() AND ended_at IS NULL) AS live
    FROM unnest($1::uuid[], $2::bigint[]) AS asked (id, replica) LEFT JOIN jobs ON jobs.id = asked.id";

const CHECKPOINTS: &str = "
    SELECT c.job_id, c.stage, c.version, c.output
    FROM unnest($1::uuid[], $2::int[]) AS claimed (id, generation)
        JOIN checkpoints c ON c.job_id = claimed.id AND c.generation = claimed.generation
    ORDER BY c.finished_at, c.stage";

impl Store {
    /// Returns a claim for a row that names this replica as its owner although none of its runs
    /// has it: the answer to the claim was lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn adopt(&self, replica: ReplicaId, id: JobId) -> Result<Option<Claim>, StoreError> {
        let client = self.client().await?;
        let rows = query(&client, OWNED, &[&id.0, &replica.0]).await?;
        claims(&client, &rows).await?.pop().transpose()
    }
}

/// A job and the replica that claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) job: JobId,
    pub(super) replica: ReplicaId,
}

/// Returns [`CLAIM`]'s parameters.
pub(super) fn columns(wanted: &[Wanted]) -> (Vec<Uuid>, Vec<i64>) {
    wanted.iter().map(|one| (one.job.0, one.replica.0)).unzip()
}

/// Returns the result for each of `wanted`, from the rows that [`CLAIM`] updated.
pub(super) async fn claimed(
    client: &deadpool_postgres::Client,
    wanted: &[Wanted],
    taken: &[Row],
) -> Result<Vec<Result<Claimed, StoreError>>, StoreError> {
    let mut ours = HashMap::with_capacity(taken.len());
    for (row, claim) in taken.iter().zip(claims(client, taken).await?) {
        ours.insert(JobId(row.try_get("id")?), claim);
    }
    let rest: Vec<Wanted> = wanted
        .iter()
        .filter(|one| !ours.contains_key(&one.job))
        .copied()
        .collect();
    let reasons = if rest.is_empty() {
        HashMap::new()
    } else {
        why_not(client, &rest).await?
    };
    let claimed = |one: &Wanted| match ours.remove(&one.job) {
        Some(claim) => claim.map(|claim| Claimed::Ours(Box::new(claim))),
        None => Ok(Claimed::Not(
            reasons.get(&one.job).copied().unwrap_or(NotClaimed::NotDue),
        )),
    };
    Ok(wanted.iter().map(claimed).collect())
}

async fn why_not(
    client: &deadpool_postgres::Client,
    asked: &[Wanted],
) -> Result<HashMap<JobId, NotClaimed>, StoreError> {
    let (ids, replicas) = columns(asked);
    let reason = |row: &Row| {
        let reason = match (
            row.try_get("row")?,
            row.try_get("due")?,
            row.try_get("live")?,
        ) {
            (false, _, _) => NotClaimed::NoRow,
            (true, true, false) => NotClaimed::LeaseLost,
            (true, _, _) => NotClaimed::NotDue,
        };
        Ok((JobId(row.try_get("id")?), reason))
    };
    query(client, WHY_NOT, &[&ids, &replicas])
        .await?
        .iter()
        .map(reason)
        .collect()
}

/// Returns the claim for a row that `intake` inserted and claimed for `new`; its deadline passes
/// in `deadline_in` seconds.
pub(super) fn fresh(
    replica: ReplicaId,
    new: &NewJob,
    deadline_in: Option<f64>,
) -> Result<Claim, StoreError> {
    let Incoming::Known(payload) = &new.payload else {
        return Err(StoreError::Row(
            "a job of a newer schema was claimed".to_owned(),
        ));
    };
    let job = Job {
        id: new.id,
        pipeline: new.pipeline.to_owned(),
        organization: new.organization.clone(),
        account: None,
        source: new.source.clone(),
        payload: payload.clone(),
        parent: None,
        generation: Generation(1),
        epoch: Epoch(1),
        stage: new.stage.to_owned(),
        attempt: Attempt(1),
        deadline: new.deadline,
        traceparent: new.traceparent.clone(),
    };
    Ok(Claim {
        tracestate: new.tracestate.clone(),
        ..claim(replica, job, Outputs::default(), deadline_in)
    })
}

/// Returns the claims for rows that this worker owns, each with its checkpoints.
async fn claims(
    client: &deadpool_postgres::Client,
    rows: &[Row],
) -> Result<Vec<Result<Claim, StoreError>>, StoreError> {
    let mut jobs = Vec::with_capacity(rows.len());
    let (mut ids, mut generations) = (Vec::new(), Vec::new());
    for row in rows {
        let (id, generation) = (
            row.try_get::<_, Uuid>("id")?,
            row.try_get::<_, i32>("generation")?,
        );
        // A job for which no claim has committed anything has no checkpoints.
        if row.try_get::<_, i64>("committed_epoch")? > 0 {
            ids.push(id);
            generations.push(generation);
        }
        jobs.push((id, row));
    }
    let mut outputs: HashMap<Uuid, Vec<Checkpoint>> = HashMap::new();
    if !ids.is_empty() {
        for row in query(client, CHECKPOINTS, &[&ids, &generations]).await? {
            outputs
                .entry(row.try_get("job_id")?)
                .or_default()
                .push(checkpoint(&row)?);
        }
    }
    Ok(jobs
        .into_iter()
        .map(|(id, row)| owned(row, Outputs::new(outputs.remove(&id).unwrap_or_default())))
        .collect())
}

fn owned(row: &Row, outputs: Outputs) -> Result<Claim, StoreError> {
    let payload: Option<Json<Box<RawValue>>> = row.try_get("payload")?;
    let job = Job {
        id: JobId(row.try_get("id")?),
        pipeline: row.try_get("pipeline")?,
        organization: row.try_get("organization")?,
        account: row.try_get("account")?,
        source: row.try_get("source")?,
        payload: payload.map_or_else(|| RawValue::NULL.to_owned(), |json| json.0),
        parent: row.try_get::<_, Option<Uuid>>("parent_id")?.map(JobId),
        generation: Generation(row.try_get("generation")?),
        epoch: Epoch(row.try_get("epoch")?),
        stage: row.try_get("stage")?,
        attempt: Attempt(row.try_get("attempt")?),
        deadline: row.try_get("deadline")?,
        traceparent: row.try_get("traceparent")?,
    };
    let claim = claim(
        ReplicaId(row.try_get("owner")?),
        job,
        outputs,
        row.try_get("deadline_in")?,
    );
    let is_suspect = row.try_get::<_, i32>("crash_count")? >= SUSPECT_AFTER;
    let (sealed_payload, tracestate) = (row.try_get("sealed_payload")?, row.try_get("tracestate")?);
    let partial = row
        .try_get::<_, Option<Json<Box<RawValue>>>>("partial")?
        .map(|json| json.0);
    let read_again = row.try_get("read_again")?;
    Ok(Claim {
        sealed_payload,
        is_suspect,
        tracestate,
        partial,
        read_again,
        ..claim
    })
}

fn claim(replica: ReplicaId, job: Job, outputs: Outputs, deadline_in: Option<f64>) -> Claim {
    let fence = Fence {
        job: job.id,
        epoch: job.epoch,
        replica,
    };
    let deadline = seconds(deadline_in).and_then(|left| Instant::now().checked_add(left));
    let (is_suspect, read_again, partial) = (false, false, None);
    Claim {
        job,
        outputs,
        fence,
        deadline,
        sealed_payload: None,
        is_suspect,
        tracestate: None,
        partial,
        read_again,
    }
}

fn checkpoint(row: &Row) -> Result<Checkpoint, StoreError> {
    let Json(output) = row.try_get::<_, Json<Box<RawValue>>>("output")?;
    Ok(Checkpoint {
        stage: row.try_get("stage")?,
        version: row.try_get("version")?,
        output,
    })
}

/// Converts seconds of the database into a duration; negative values become zero.
pub(super) fn seconds(value: Option<f64>) -> Option<Duration> {
    value.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}
