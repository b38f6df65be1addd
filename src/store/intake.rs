//! Inserts rows for intake messages, a group of them in one statement, and claims them in the same
//! statement.

use std::collections::HashMap;

use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::announcements::{
    Announcement, WRITER_PUBLISHES, announcement, announcement_columns, job_facts,
};
use super::claim::{self, Claim};
use super::error::StoreError;
use super::new_job::NewJob;
use super::sql::query;
use crate::job::JobId;
use crate::telemetry::names;

/// Result of an intake message.
#[derive(Debug)]
pub enum Intaken {
    /// A new row that is claimed; the caller publishes its events.
    Ours(Box<Claim>, Vec<Announcement>),
    /// A new row that is left to the waker, or was cancelled before it arrived; the caller
    /// publishes its events.
    Accepted(Vec<Announcement>),
    /// The same message arrived before: read its row, and reply if the message asks for replies.
    Known(JobId),
    /// Another message with the same key arrived before.
    Conflict(JobId),
}

/// A key without a job is a cancel that arrived first: the job is inserted and cancelled at once.
/// `job.accepted` and the events that follow at once are inserted with the row. A key whose job no
/// longer exists is reused. A key younger than an hour belongs to its job, even if the snapshot of
/// this statement does not show that job yet. (The job is looked up by a scalar subquery, because
/// an `EXISTS` might be planned as a hash of all jobs.) The keys are inserted in order, so that
/// two groups with the same keys do not deadlock. Rows pass from one part to another by a lookup
/// in a hash (`IN` where it is no condition): a join of the parts would compare each row with each
/// other, because the writers' plans use no hash joins.
pub(super) const INTAKE: &str = concat!(
    "
    WITH asked AS (
        SELECT id, source, dedupe_key, digest, pipeline, stage, organization, payload, sealed_payload, schema, not_before,
            deadline, reply_to, correlation_id, traceparent, tracestate, producer, bytes, schema > known_schema AS newer,
            owner IS NOT NULL AND schema <= known_schema AND coalesce(not_before, now()) <= now() AND EXISTS (
                SELECT 1 FROM replicas WHERE replicas.id = owner AND alive_until > now() AND ended_at IS NULL) AS run,
            owner
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::json[], $9::text[],
            $10::bigint[], $11::timestamptz[], $12::timestamptz[], $13::text[], $14::text[], $15::text[], $16::text[],
            $17::text[], $18::bigint[], $19::bigint[], $20::int[]) AS given (id, source, dedupe_key, digest, pipeline, stage,
            organization, payload, sealed_payload, schema, not_before, deadline, reply_to, correlation_id, traceparent, tracestate,
            producer, owner, known_schema, bytes)
    ), key AS (
        INSERT INTO job_keys AS k (source, dedupe_key, job_id, digest, producer)
        SELECT source, dedupe_key, id, digest, producer FROM asked ORDER BY source, dedupe_key
        ON CONFLICT (source, dedupe_key) DO UPDATE SET job_id = excluded.job_id, digest = excluded.digest, created_at = now(),
            producer = excluded.producer,
            cancelled_by = CASE WHEN k.job_id IS NULL AND k.created_at >= now() - interval '30 days' THEN k.cancelled_by END
            WHERE k.job_id IS NULL OR (k.created_at < now() - interval '1 hour'
                AND (SELECT true FROM jobs WHERE jobs.id = k.job_id) IS NULL)
        RETURNING job_id, cancelled_by IS NOT NULL AS cancelled
    ), new AS MATERIALIZED (
        SELECT id, source, dedupe_key, pipeline, stage, organization, payload, sealed_payload, schema, not_before, deadline, reply_to,
            correlation_id, traceparent, tracestate, producer, bytes, newer, run, owner,
            id IN (SELECT job_id FROM key WHERE cancelled) AS cancelled
        FROM asked WHERE (id IN (SELECT job_id FROM key)) IS TRUE
    ), made AS (
        INSERT INTO jobs (id, pipeline, stage, source, dedupe_key, organization, payload, sealed_payload, schema, due_at, deadline,
            reply_to, correlation_id, traceparent, tracestate, producer, bytes, state, owner, epoch, woken_at, finished_at, wait_reason,
            wait_key, wait_observed)
        SELECT id, pipeline, stage, source, dedupe_key, organization, payload, sealed_payload, schema, coalesce(not_before, now()),
            deadline, reply_to, correlation_id, traceparent, tracestate, producer, bytes,
            CASE WHEN cancelled THEN 'cancelled' WHEN newer THEN 'waiting' WHEN run THEN 'running' ELSE 'ready' END,
            CASE WHEN run AND NOT cancelled THEN owner END, CASE WHEN run AND NOT cancelled THEN 1 ELSE 0 END,
            CASE WHEN run AND NOT cancelled THEN now() END, CASE WHEN cancelled THEN now() END,
            CASE WHEN newer AND NOT cancelled THEN 'version' END,
            CASE WHEN newer AND NOT cancelled THEN 'schema:' || schema END, CASE WHEN newer AND NOT cancelled THEN 0 END
        FROM new
        RETURNING id, source, dedupe_key, organization, state, wait_reason, wait_key, error_code, error_message, error_hint,
            reply_to, correlation_id, traceparent, tracestate, owner
    ), told AS (
        INSERT INTO announcements (job_id, routing_key, reply_to, correlation_id, traceparent, tracestate, body, publish_after)
        SELECT id, event, reply_to, correlation_id, traceparent, tracestate, ",
    job_facts!("event", ""),
    ", now() + $21 * interval '1 second'
        FROM made, unnest(ARRAY['job.accepted', 'job.waiting.' || wait_reason,
            CASE WHEN state = 'cancelled' THEN 'job.cancelled' END]) WITH ORDINALITY AS events (event, number)
        WHERE event IS NOT NULL ORDER BY number
        RETURNING ",
    announcement_columns!(),
    "
    )
    SELECT job_id IN (SELECT id FROM made WHERE owner IS NOT NULL) AS ours, now() AS now, job_id, id, routing_key, reply_only,
        reply_to, correlation_id, traceparent, tracestate, body, tries, reply_tries, is_old
    FROM told ORDER BY id"
);

const KNOWN_KEYS: &str = "
    SELECT source, dedupe_key, job_id, digest FROM job_keys
    WHERE (source, dedupe_key) IN (SELECT source, dedupe_key FROM unnest($1::text[], $2::text[]) AS asked (source, dedupe_key))";

/// The jobs of a group, as the columns of [`INTAKE`]'s parameters.
pub(super) struct NewJobs<'a> {
    ids: Vec<Uuid>,
    texts: [Vec<Option<&'a str>>; 11],
    digests: Vec<&'a [u8]>,
    payloads: Vec<Option<Json<&'a RawValue>>>,
    schemas: Vec<i64>,
    times: [Vec<Option<OffsetDateTime>>; 2],
    owners: Vec<Option<i64>>,
    known_schemas: Vec<i64>,
    bytes: Vec<i32>,
}

impl<'a> NewJobs<'a> {
    pub(super) fn of(new: impl Iterator<Item = &'a NewJob> + Clone) -> Self {
        let text = |of: fn(&'a NewJob) -> Option<&'a str>| new.clone().map(of).collect();
        Self {
            ids: new.clone().map(|one| one.id.0).collect(),
            texts: [
                text(|one| Some(&one.source)),
                text(|one| Some(&one.dedupe_key)),
                text(|one| Some(one.pipeline)),
                text(|one| Some(one.stage)),
                text(|one| Some(&one.organization)),
                text(|one| one.payload.sealed()),
                text(|one| one.reply_to.as_deref()),
                text(|one| one.correlation_id.as_deref()),
                text(|one| one.traceparent.as_deref()),
                text(|one| one.tracestate.as_deref()),
                text(|one| one.producer.as_deref()),
            ],
            digests: new.clone().map(|one| one.digest.as_slice()).collect(),
            payloads: new
                .clone()
                .map(|one| one.payload.known().map(Json))
                .collect(),
            schemas: new.clone().map(|one| one.schema).collect(),
            times: [
                new.clone().map(|one| one.not_before).collect(),
                new.clone().map(|one| one.deadline).collect(),
            ],
            owners: new
                .clone()
                .map(|one| one.owner.map(|owner| owner.0))
                .collect(),
            known_schemas: new.clone().map(|one| one.known_schema).collect(),
            bytes: new
                .map(|one| i32::try_from(one.bytes).unwrap_or(i32::MAX))
                .collect(),
        }
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 21] {
        let [
            source,
            dedupe_key,
            pipeline,
            stage,
            organization,
            sealed,
            reply_to,
            correlation_id,
            traceparent,
            tracestate,
            producer,
        ] = &self.texts;
        let [not_before, deadline] = &self.times;
        [
            &self.ids,
            source,
            dedupe_key,
            &self.digests,
            pipeline,
            stage,
            organization,
            &self.payloads,
            sealed,
            &self.schemas,
            not_before,
            deadline,
            reply_to,
            correlation_id,
            traceparent,
            tracestate,
            producer,
            &self.owners,
            &self.known_schemas,
            &self.bytes,
            &WRITER_PUBLISHES,
        ]
    }
}

/// Returns the result for each of `new`, from the rows that [`INTAKE`] inserted: a message without
/// a row was known before. There is one row per event.
pub(super) async fn intaken(
    client: &deadpool_postgres::Client,
    new: &[&NewJob],
    made: &[Row],
) -> Result<Vec<Result<Intaken, StoreError>>, StoreError> {
    let mut rows: HashMap<Uuid, Vec<&Row>> = HashMap::with_capacity(made.len());
    for row in made {
        rows.entry(row.try_get("job_id")?).or_default().push(row);
    }
    metrics::counter!(names::ACCEPTED).increment(rows.len() as u64);
    let rest: Vec<&NewJob> = new
        .iter()
        .filter(|one| !rows.contains_key(&one.id.0))
        .copied()
        .collect();
    let known = if rest.is_empty() {
        HashMap::new()
    } else {
        known_keys(client, &rest).await?
    };
    let led_to = |one: &&NewJob| match rows.get(&one.id.0) {
        Some(rows) => accepted(one, rows),
        None => met_before(one, &known),
    };
    Ok(new.iter().map(led_to).collect())
}

fn accepted(new: &NewJob, rows: &[&Row]) -> Result<Intaken, StoreError> {
    let announcements = rows
        .iter()
        .map(|row| announcement(row))
        .collect::<Result<_, _>>()?;
    let (Some(owner), Some(row)) = (new.owner, rows.first()) else {
        return Ok(Intaken::Accepted(announcements));
    };
    if !row.try_get::<_, bool>("ours")? {
        return Ok(Intaken::Accepted(announcements));
    }
    let now: OffsetDateTime = row.try_get("now")?;
    let left = new
        .deadline
        .map(|deadline| (deadline - now).as_seconds_f64());
    Ok(Intaken::Ours(
        Box::new(claim::fresh(owner, new, left)?),
        announcements,
    ))
}

type KnownKeys = HashMap<(String, String), (JobId, Vec<u8>)>;

async fn known_keys(
    client: &deadpool_postgres::Client,
    asked: &[&NewJob],
) -> Result<KnownKeys, StoreError> {
    let sources: Vec<&str> = asked.iter().map(|one| one.source.as_str()).collect();
    let keys: Vec<&str> = asked.iter().map(|one| one.dedupe_key.as_str()).collect();
    let rows = query(client, KNOWN_KEYS, &[&sources, &keys]).await?;
    let known = |row: &Row| {
        let key = (row.try_get("source")?, row.try_get("dedupe_key")?);
        Ok((key, (JobId(row.try_get("job_id")?), row.try_get("digest")?)))
    };
    rows.iter().map(known).collect()
}

fn met_before(new: &NewJob, known: &KnownKeys) -> Result<Intaken, StoreError> {
    match known.get(&(new.source.clone(), new.dedupe_key.clone())) {
        Some((job, digest)) if *digest == new.digest => Ok(Intaken::Known(*job)),
        Some((job, _)) => Ok(Intaken::Conflict(*job)),
        None => Err(StoreError::KeyGone),
    }
}
