//! Becoming a job's owner: from an intake message (the row is made) or from a wake-up (the row is taken).

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::Store;
use super::announcements::{Announcement, WRITER_PUBLISHES, announcement, announcement_columns, answer_again, job_facts};
use super::error::StoreError;
use super::sql::{query, query_one, query_opt};
use crate::engine::{Checkpoint, Outputs};
use crate::job::{Attempt, Epoch, Generation, Job, JobId, ReplicaId};

/// The right to write for a running job. Only a claim makes one; a write with an old one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub(super) job: JobId,
    pub(super) epoch: Epoch,
    pub(super) replica: ReplicaId,
}

impl Fence {
    /// The job.
    #[must_use]
    pub const fn job(&self) -> JobId {
        self.job
    }
}

/// A job in hand.
#[derive(Debug)]
pub struct Claim {
    /// As stored.
    pub job: Job,
    /// Of its finished stages.
    pub outputs: Outputs,
    /// For every write.
    pub fence: Fence,
    /// Its deadline, if it has one, on this process's monotonic clock.
    pub deadline: Option<Instant>,
    /// Of a schema that was not known when it came.
    pub sealed_payload: Option<String>,
    /// What vendors add to the job's trace context.
    pub tracestate: Option<String>,
}

impl Claim {
    /// Whether the job's deadline has passed.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// What a wake-up led to.
#[derive(Debug)]
pub enum Claimed {
    /// The job is ours.
    Ours(Box<Claim>),
    /// It is not: nothing to do.
    Not(NotClaimed),
}

/// Why a wake-up led to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotClaimed {
    /// There is no such row (a restored database).
    NoRow,
    /// Finished, waiting, parked, not due yet, or owned.
    NotDue,
    /// This replica's lease is over: it may not claim.
    LeaseLost,
}

/// A job to be made from an intake message.
#[derive(Debug)]
pub struct NewJob<'a> {
    /// Its id, used unless the key is known already.
    pub id: JobId,
    /// Its pipeline and first stage.
    pub pipeline: &'a str,
    /// See [`NewJob::pipeline`].
    pub stage: &'a str,
    /// The producer and its key.
    pub source: &'a str,
    /// See [`NewJob::source`].
    pub dedupe_key: &'a str,
    /// SHA-256 of the canonical message.
    pub digest: &'a [u8; 32],
    /// The tenant.
    pub organization: &'a str,
    /// Of the message.
    pub schema: i64,
    /// What the stages read, or the sealed bytes of a newer schema.
    pub payload: Incoming<'a>,
    /// Not before.
    pub not_before: Option<OffsetDateTime>,
    /// Not after.
    pub deadline: Option<OffsetDateTime>,
    /// Where outcomes go besides `dispatch.events`.
    pub reply_to: Option<&'a str>,
    /// Given back with them.
    pub correlation_id: Option<&'a str>,
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
    /// What vendors add to it.
    pub tracestate: Option<&'a str>,
    /// Whether to claim it at once; otherwise it is left to the waker.
    pub run: bool,
}

/// An intake payload as stored.
#[derive(Debug, Clone, Copy)]
pub enum Incoming<'a> {
    /// JSON of a known schema.
    Known(&'a RawValue),
    /// Sealed bytes of a newer one.
    Newer(&'a str),
}

/// What an intake message led to.
#[derive(Debug)]
pub enum Intaken {
    /// A new row, claimed; the caller publishes its events.
    Ours(Box<Claim>, Vec<Announcement>),
    /// A new row, left to the waker, or cancelled before it came; the caller publishes its events.
    Accepted(Vec<Announcement>),
    /// The same message came before: look at its row. Where it asks for answers, the caller publishes this one.
    Known(JobId, Option<Announcement>),
    /// Another message came before with the same key.
    Conflict(JobId),
}

/// A key without a job is a cancel that came first: the job is made and cancelled at once. `job.accepted` and what follows at once
/// are announced with the row.
const INTAKE: &str = concat!(
    "
    WITH key AS (
        INSERT INTO job_keys AS k (source, dedupe_key, job_id, digest) VALUES ($2, $3, $1, $4)
        ON CONFLICT (source, dedupe_key) DO UPDATE SET job_id = excluded.job_id, digest = excluded.digest, created_at = now(),
            cancelled_by = CASE WHEN k.job_id IS NULL AND k.created_at >= now() - interval '30 days' THEN k.cancelled_by END
            WHERE k.job_id IS NULL OR k.created_at < now() - interval '30 days'
        RETURNING job_id, cancelled_by IS NOT NULL AS cancelled
    ), due AS (
        SELECT $13::bigint IS NOT NULL AND $10::bigint <= $19 AND coalesce($11::timestamptz, now()) <= now() AS now,
            EXISTS (SELECT 1 FROM replicas WHERE id = $13 AND alive_until > now() AND ended_at IS NULL) AS live
    ), start AS (
        SELECT CASE WHEN key.cancelled THEN 'cancelled' WHEN $10 > $19 THEN 'waiting' WHEN due.now AND due.live THEN 'running'
            ELSE 'ready' END AS state
        FROM key, due
    ), made AS (
        INSERT INTO jobs (id, pipeline, stage, source, dedupe_key, organization, payload, sealed_payload, schema, due_at, deadline,
            reply_to, correlation_id, traceparent, tracestate, state, owner, epoch, woken_at, finished_at, wait_reason, wait_key,
            wait_observed)
        SELECT key.job_id, $5, $6, $2, $3, $7, $8, $9, $10, coalesce($11, now()), $12, $14, $15, $16, $20, start.state,
            CASE WHEN start.state = 'running' THEN $13 END, CASE WHEN start.state = 'running' THEN 1 ELSE 0 END,
            CASE WHEN start.state = 'running' THEN now() END, CASE WHEN start.state = 'cancelled' THEN now() END,
            CASE WHEN start.state = 'waiting' THEN $17::text END, CASE WHEN start.state = 'waiting' THEN $18::text END,
            CASE WHEN start.state = 'waiting' THEN 0 END
        FROM key, start
        RETURNING id, source, dedupe_key, organization, state, wait_reason, wait_key, error_code, error_message, error_hint,
            reply_to, correlation_id, traceparent, tracestate, epoch, owner, deadline
    ), told AS (
        INSERT INTO announcements (job_id, routing_key, reply_to, correlation_id, traceparent, tracestate, body, publish_after)
        SELECT id, event, reply_to, correlation_id, traceparent, tracestate, ",
    job_facts!("event", "NULL::json"),
    ", now() + $21 * interval '1 second'
        FROM made, unnest(ARRAY['job.accepted', 'job.waiting.' || wait_reason,
            CASE WHEN state = 'cancelled' THEN 'job.cancelled' END]) WITH ORDINALITY AS events (event, number)
        WHERE event IS NOT NULL ORDER BY number
        RETURNING ",
    announcement_columns!(),
    "
    )
    SELECT epoch, owner, extract(epoch FROM deadline - now())::float8 AS deadline_in, told.id, told.routing_key, told.reply_only,
        told.reply_to, told.correlation_id, told.traceparent, told.tracestate, told.body
    FROM made, told ORDER BY told.id"
);

const KNOWN_KEY: &str = "SELECT job_id, digest FROM job_keys WHERE source = $1 AND dedupe_key = $2";

const CLAIM: &str = "
    UPDATE jobs SET state = 'running', owner = $2, epoch = epoch + 1, woken_at = coalesce(woken_at, now())
    WHERE id = $1 AND state = 'ready' AND due_at <= now()
        AND EXISTS (SELECT 1 FROM replicas WHERE replicas.id = $2 AND alive_until > now() AND ended_at IS NULL)
    RETURNING id, pipeline, parent_id, source, organization, account, payload, sealed_payload, generation, epoch, stage, attempt,
        deadline, traceparent, tracestate, extract(epoch FROM deadline - now())::float8 AS deadline_in";

const OWNED: &str = "
    SELECT id, pipeline, parent_id, source, organization, account, payload, sealed_payload, generation, epoch, stage, attempt,
        deadline, traceparent, tracestate, extract(epoch FROM deadline - now())::float8 AS deadline_in
    FROM jobs WHERE id = $1 AND owner = $2 AND state = 'running' FOR UPDATE";

const WHY_NOT: &str = "
    SELECT EXISTS (SELECT 1 FROM jobs WHERE id = $1) AS row,
        EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND state = 'ready' AND due_at <= now()) AS due,
        EXISTS (SELECT 1 FROM replicas WHERE id = $2 AND alive_until > now() AND ended_at IS NULL) AS live";

const CHECKPOINTS: &str =
    "SELECT stage, version, output FROM checkpoints WHERE job_id = $1 AND generation = $2 ORDER BY finished_at, stage";

impl Store {
    /// Makes a row of an intake message and, where `new.run` says so and it is due, becomes its owner in the same statement.
    /// `known_schema` is the newest schema this worker runs: a newer one waits.
    ///
    /// # Errors
    /// [`StoreError`]; where the link broke, the row may be there: the message, delivered again, finds it.
    pub async fn intake(&self, replica: ReplicaId, known_schema: i64, new: &NewJob<'_>) -> Result<Intaken, StoreError> {
        let client = self.client().await?;
        let (payload, sealed) = match new.payload {
            Incoming::Known(json) => (Some(Json(json)), None),
            Incoming::Newer(sealed) => (None, Some(sealed)),
        };
        let owner = new.run.then_some(replica.0);
        let wait_key = format!("schema:{}", new.schema);
        let rows = query(
            &client,
            INTAKE,
            &[
                &new.id.0,
                &new.source,
                &new.dedupe_key,
                &new.digest.as_slice(),
                &new.pipeline,
                &new.stage,
                &new.organization,
                &payload,
                &sealed,
                &new.schema,
                &new.not_before,
                &new.deadline,
                &owner,
                &new.reply_to,
                &new.correlation_id,
                &new.traceparent,
                &"version",
                &wait_key,
                &known_schema,
                &new.tracestate,
                &WRITER_PUBLISHES,
            ],
        )
        .await?;
        let Some(row) = rows.first() else { return known_key(&client, new).await };
        let told = rows.iter().map(announcement).collect::<Result<_, _>>()?;
        Ok(match row.try_get::<_, Option<i64>>("owner")? {
            Some(_) => Intaken::Ours(Box::new(fresh(replica, new, row)?), told),
            None => Intaken::Accepted(told),
        })
    }

    /// Takes a row that is ready and due.
    ///
    /// # Errors
    /// [`StoreError`]; where the link broke, the row may be ours: [`Store::adopt`] tells.
    pub async fn claim(&self, replica: ReplicaId, id: JobId) -> Result<Claimed, StoreError> {
        let client = self.client().await?;
        if let Some(row) = query_opt(&client, CLAIM, &[&id.0, &replica.0]).await? {
            return Ok(Claimed::Ours(Box::new(with_checkpoints(&client, replica, &row).await?)));
        }
        let row = query_one(&client, WHY_NOT, &[&id.0, &replica.0]).await?;
        Ok(Claimed::Not(match (row.try_get("row")?, row.try_get("due")?, row.try_get("live")?) {
            (false, _, _) => NotClaimed::NoRow,
            (true, true, false) => NotClaimed::LeaseLost,
            (true, _, _) => NotClaimed::NotDue,
        }))
    }

    /// A row that shows this replica as its owner though none of its runs has it: a claim whose answer was lost.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn adopt(&self, replica: ReplicaId, id: JobId) -> Result<Option<Claim>, StoreError> {
        let client = self.client().await?;
        let Some(row) = query_opt(&client, OWNED, &[&id.0, &replica.0]).await? else { return Ok(None) };
        Ok(Some(with_checkpoints(&client, replica, &row).await?))
    }
}

async fn known_key(client: &deadpool_postgres::Client, new: &NewJob<'_>) -> Result<Intaken, StoreError> {
    let row = query_one(client, KNOWN_KEY, &[&new.source, &new.dedupe_key]).await?;
    let id = JobId(row.try_get("job_id")?);
    let digest: Vec<u8> = row.try_get("digest")?;
    if digest != new.digest {
        return Ok(Intaken::Conflict(id));
    }
    let answer = match new.reply_to {
        Some(reply_to) => answer_again(client, id, reply_to, new.correlation_id).await?,
        None => None,
    };
    Ok(Intaken::Known(id, answer))
}

fn fresh(replica: ReplicaId, new: &NewJob<'_>, row: &Row) -> Result<Claim, StoreError> {
    let Incoming::Known(payload) = new.payload else {
        return Err(StoreError::Row("a job of a newer schema was claimed".to_owned()));
    };
    let job = Job {
        id: new.id,
        pipeline: new.pipeline.to_owned(),
        organization: new.organization.to_owned(),
        account: None,
        source: new.source.to_owned(),
        payload: payload.to_owned(),
        parent: None,
        generation: Generation(1),
        epoch: Epoch(row.try_get("epoch")?),
        stage: new.stage.to_owned(),
        attempt: Attempt(1),
        deadline: new.deadline,
        traceparent: new.traceparent.map(str::to_owned),
    };
    let fence = Fence { job: job.id, epoch: job.epoch, replica };
    let deadline = seconds(row.try_get("deadline_in")?).and_then(|left| Instant::now().checked_add(left));
    let tracestate = new.tracestate.map(str::to_owned);
    Ok(Claim { job, outputs: Outputs::default(), fence, deadline, sealed_payload: None, tracestate })
}

async fn with_checkpoints(client: &deadpool_postgres::Client, replica: ReplicaId, row: &Row) -> Result<Claim, StoreError> {
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
    let rows = query(client, CHECKPOINTS, &[&job.id.0, &job.generation.0]).await?;
    let outputs = rows.iter().map(checkpoint).collect::<Result<_, _>>()?;
    let fence = Fence { job: job.id, epoch: job.epoch, replica };
    let deadline = seconds(row.try_get("deadline_in")?).and_then(|left| Instant::now().checked_add(left));
    let (sealed_payload, tracestate) = (row.try_get("sealed_payload")?, row.try_get("tracestate")?);
    Ok(Claim { job, outputs: Outputs::new(outputs), fence, deadline, sealed_payload, tracestate })
}

fn checkpoint(row: &Row) -> Result<Checkpoint, StoreError> {
    let Json(output) = row.try_get::<_, Json<Box<RawValue>>>("output")?;
    Ok(Checkpoint { stage: row.try_get("stage")?, version: row.try_get("version")?, output })
}

/// Seconds of the database as a duration; less than nothing is nothing.
pub(super) fn seconds(value: Option<f64>) -> Option<Duration> {
    value.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}
