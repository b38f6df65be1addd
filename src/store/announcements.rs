//! Outcome events (the outbox). The transaction that causes an outcome stores its facts; they are
//! deleted when the broker has confirmed the event.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query, query_opt};
use crate::job::JobId;
use crate::message::{Facts, Outcome, outcome};

/// An outcome event to be published.
#[derive(Debug)]
pub struct Announcement {
    /// Id of its row.
    pub id: i64,
    /// The job; `None` for a message that became no job.
    pub job: Option<JobId>,
    /// Routing key on `dispatch.events`; `None` if only the producer gets the event.
    pub routing_key: Option<String>,
    /// The queue that the same body is published to.
    pub reply_to: Option<String>,
    /// Returned to the producer.
    pub correlation_id: Option<String>,
    /// W3C trace context of the job, if it has one.
    pub traceparent: Option<String>,
    /// W3C `tracestate` of the job.
    pub tracestate: Option<String>,
    /// An [`Outcome`] as JSON.
    pub body: Vec<u8>,
    /// Whether it is so old that a refused reply is not retried.
    pub is_old: bool,
    /// Publishes of the event that the broker refused or did not confirm.
    pub tries: i32,
    /// Publishes of the reply that the broker refused or did not confirm.
    pub reply_tries: i32,
}

/// The columns that [`announcement`] reads.
macro_rules! announcement_columns {
    () => {
        "id, job_id, routing_key, reply_only, reply_to, correlation_id, traceparent, tracestate, body, tries, reply_tries,
            created_at < now() - interval '1 hour' AS is_old"
    };
}
pub(super) use announcement_columns;

/// The [`Facts`] of a job as JSON: an expression over the columns of `jobs`. Its arguments are the
/// event and further facts as SQL (names and values, each followed by a comma).
macro_rules! job_facts {
    ($event:literal, $more:expr) => {
        concat!(
            "json_strip_nulls(json_build_object('event', ",
            $event,
            "::text, 'job_id', id, 'source', source, 'dedupe_key', dedupe_key, 'organization', organization, 'state', state,
            'reason', wait_reason, 'wait_key', wait_key, 'code', error_code, 'message', error_message, 'hint', error_hint,
            ",
            $more,
            "'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')))"
        )
    };
}
pub(super) use job_facts;

/// Further facts for [`job_facts`]: skipped items, and the template if the job waits for an
/// account.
macro_rules! skipped_and_configuration {
    () => {
        "'skipped', skipped, 'configuration', (SELECT output FROM checkpoints c WHERE c.job_id = jobs.id
            AND c.generation = jobs.generation AND c.stage = 'show_configuration' AND jobs.wait_reason = 'configuration'), "
    };
}

/// The facts of a parked follow-up `f`.
macro_rules! follow_up_facts {
    () => {
        "json_build_object('job_id', f.id, 'pipeline', f.pipeline, 'code', f.error_code, 'message', f.error_message,
            'hint', f.error_hint)"
    };
}

/// Only jobs without a parent are announced: follow-ups are internal to the worker. For `$3`
/// seconds, only the writer publishes the row. With `$4`, only jobs that have succeeded in this
/// transaction are announced.
pub(super) const ANNOUNCE: &str = concat!(
    "
    INSERT INTO announcements (job_id, routing_key, reply_to, correlation_id, traceparent, tracestate, body, publish_after)
    SELECT id, $2, reply_to, correlation_id, traceparent, tracestate, ",
    job_facts!("$2", skipped_and_configuration!()),
    ", now() + $3 * interval '1 second'
    FROM jobs WHERE id = ANY($1) AND parent_id IS NULL AND (NOT $4::bool OR (state = 'succeeded' AND finished_at = now()))
    RETURNING ",
    announcement_columns!()
);

/// Inserts one event of the parent for each of these follow-ups that is parked. A parent that has
/// ended has no more events.
const ANNOUNCE_FOLLOW_UPS: &str = concat!(
    "
    INSERT INTO announcements (job_id, routing_key, reply_to, correlation_id, traceparent, tracestate, body, publish_after)
    SELECT id, $2, reply_to, correlation_id, traceparent, tracestate, ",
    job_facts!("$2", "'skipped', skipped, 'follow_up', parked.follow_up, "),
    ", now() + $3 * interval '1 second'
    FROM jobs, (SELECT f.parent_id AS parent, ",
    follow_up_facts!(),
    " AS follow_up FROM jobs f WHERE f.id = ANY($1) AND f.state = 'parked') AS parked
    WHERE id = parked.parent AND parent_id IS NULL AND state NOT IN ('succeeded', 'cancelled')
    RETURNING ",
    announcement_columns!()
);

/// Waits for the transaction that currently changes the job. Later events go to the new queue.
const MOVE_REPLIES: &str = "UPDATE jobs SET reply_to = $2, correlation_id = $3 WHERE id = $1";

/// Runs after [`MOVE_REPLIES`] as a separate statement, which sees the result of the transaction
/// that the other one has waited for.
const ANSWER: &str = concat!(
    "
    INSERT INTO announcements (job_id, routing_key, reply_only, reply_to, correlation_id, traceparent, tracestate, body,
        publish_after)
    SELECT id, $2, true, reply_to, correlation_id, traceparent, tracestate, ",
    job_facts!(
        "$2",
        concat!(
            skipped_and_configuration!(),
            "'follow_up', (SELECT ",
            follow_up_facts!(),
            " FROM jobs f WHERE f.parent_id = jobs.id AND f.state = 'parked' AND jobs.wait_reason = 'children'
                ORDER BY f.id LIMIT 1), "
        )
    ),
    ", now() + $3 * interval '1 second'
    FROM jobs WHERE id = $1
    RETURNING ",
    announcement_columns!()
);

pub(super) const DONE: &str = "DELETE FROM announcements WHERE id = ANY($1)";

/// For this long, only the writer of a row or the replica that took it publishes it. It must
/// exceed the time from handing a message to the broker until its confirm is no longer awaited.
pub const LEFT_ALONE: Duration = Duration::from_secs(10);

/// Seconds in which only the writer of an outcome event publishes it.
pub(super) const WRITER_PUBLISHES: f64 = LEFT_ALONE.as_secs_f64();

/// Inserts the event `event` of these jobs. The caller publishes the returned rows; otherwise they
/// are due after `leave` seconds.
pub(super) async fn announce<C: GenericClient>(
    on: &C,
    jobs: &[JobId],
    event: &str,
    leave: f64,
) -> Result<Vec<Announcement>, StoreError> {
    query(on, ANNOUNCE, &[&ids(jobs), &event, &leave, &false])
        .await?
        .iter()
        .map(announcement)
        .collect()
}

/// Inserts an event of the parent for each of these follow-ups, which this transaction has parked;
/// like [`announce`].
pub(super) async fn announce_follow_ups<C: GenericClient>(
    on: &C,
    parked: &[JobId],
    leave: f64,
) -> Result<Vec<Announcement>, StoreError> {
    query(
        on,
        ANNOUNCE_FOLLOW_UPS,
        &[&ids(parked), &outcome::FOLLOW_UP, &leave],
    )
    .await?
    .iter()
    .map(announcement)
    .collect()
}

/// Inserts the events of jobs and follow-ups that this transaction has parked; they are due at
/// once.
pub(super) async fn announce_parked<C: GenericClient>(
    on: &C,
    parked: &[JobId],
) -> Result<(), StoreError> {
    if !parked.is_empty() {
        announce(on, parked, outcome::PARKED, 0.0).await?;
        announce_follow_ups(on, parked, 0.0).await?;
    }
    Ok(())
}

fn ids(jobs: &[JobId]) -> Vec<Uuid> {
    jobs.iter().map(|job| job.0).collect()
}

pub(super) fn announcement(row: &Row) -> Result<Announcement, StoreError> {
    let Json(stored) = row.try_get::<_, Json<Box<RawValue>>>("body")?;
    let reply_only = row.try_get("reply_only")?;
    Ok(Announcement {
        id: row.try_get("id")?,
        job: row.try_get::<_, Option<Uuid>>("job_id")?.map(JobId),
        routing_key: if reply_only {
            None
        } else {
            Some(row.try_get("routing_key")?)
        },
        reply_to: row.try_get("reply_to")?,
        correlation_id: row.try_get("correlation_id")?,
        traceparent: row.try_get("traceparent")?,
        tracestate: row.try_get("tracestate")?,
        body: body(&stored, reply_only),
        is_old: row.try_get("is_old")?,
        tries: row.try_get("tries")?,
        reply_tries: row.try_get("reply_tries")?,
    })
}

/// Returns the body to publish. An event that only a newer worker knows is published as it is
/// stored: it contains its facts.
fn body(stored: &RawValue, reply_only: bool) -> Vec<u8> {
    let facts = serde_json::from_str::<Facts>(stored.get()).ok();
    let facts = facts.map(|facts| if reply_only { facts.as_answer() } else { facts });
    let known = facts.and_then(|facts| Outcome::try_from(facts).ok());
    let written = known.and_then(|outcome| serde_json::to_vec(&outcome).ok());
    written.unwrap_or_else(|| stored.get().as_bytes().to_vec())
}

impl Store {
    /// Answers a message that was received again: `reply_to` gets the current state of the job
    /// and, from now on, its outcomes. The caller publishes the returned event, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn answer_again(
        &self,
        job: JobId,
        reply_to: &str,
        correlation_id: Option<&str>,
    ) -> Result<Option<Announcement>, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        execute(&tx, MOVE_REPLIES, &[&job.0, &reply_to, &correlation_id]).await?;
        let answer = query_opt(
            &tx,
            ANSWER,
            &[&job.0, &outcome::ACCEPTED, &WRITER_PUBLISHES],
        )
        .await?;
        tx.commit().await?;
        answer.as_ref().map(announcement).transpose()
    }
}
