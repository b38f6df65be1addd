//! Outcome events: written by the transaction that makes the outcome, gone when the broker has confirmed them.

use deadpool_postgres::GenericClient;
use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::Store;
use super::error::StoreError;
use super::sql::query;
use crate::job::JobId;

/// An outcome event to be published.
#[derive(Debug)]
pub struct Announcement {
    /// Its row.
    pub id: i64,
    /// On `dispatch.events`.
    pub routing_key: String,
    /// The same body goes to this queue.
    pub reply_to: Option<String>,
    /// Given back to the producer.
    pub correlation_id: Option<String>,
    /// JSON.
    pub body: Box<RawValue>,
}

/// Seconds in which the writer of an outcome event publishes it itself, before the waker may.
pub(super) const WRITER_PUBLISHES: f64 = 5.0;

/// Follow-ups are the worker's own affair: only jobs without a parent are announced. `$3` seconds are left to the writer
/// before the waker may publish it. `$4`: only of jobs that have succeeded in this very transaction.
pub(super) const ANNOUNCE: &str = "
    INSERT INTO announcements (job_id, routing_key, reply_to, correlation_id, body, publish_after)
    SELECT id, $2, reply_to, correlation_id, json_strip_nulls(json_build_object('event', $2::text, 'job_id', id, 'source', source,
        'dedupe_key', dedupe_key, 'organization', organization, 'code', error_code, 'hint', error_hint, 'configuration',
        (SELECT output FROM checkpoints c WHERE c.job_id = jobs.id AND c.generation = jobs.generation
            AND c.stage = 'show_configuration' AND jobs.wait_reason = 'configuration'),
        'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))), now() + $3 * interval '1 second'
    FROM jobs WHERE id = ANY($1) AND parent_id IS NULL AND (NOT $4::bool OR (state = 'succeeded' AND finished_at = now()))
    RETURNING id, job_id, routing_key, reply_to, correlation_id, body";

const TAKE_DUE: &str = "
    UPDATE announcements SET publish_after = now() + interval '10 seconds'
    WHERE id IN (SELECT id FROM announcements WHERE publish_after <= now() ORDER BY publish_after LIMIT 200
        FOR UPDATE SKIP LOCKED)
    RETURNING id, routing_key, reply_to, correlation_id, body";

pub(super) const DONE: &str = "DELETE FROM announcements WHERE id = ANY($1)";

/// Writes the event `event` of these jobs; the caller publishes what comes back, the waker after `leave` seconds.
pub(super) async fn announce<C: GenericClient>(
    on: &C,
    jobs: &[JobId],
    event: &str,
    leave: f64,
) -> Result<Vec<Announcement>, StoreError> {
    let ids: Vec<uuid::Uuid> = jobs.iter().map(|job| job.0).collect();
    query(on, ANNOUNCE, &[&ids, &event, &leave, &false]).await?.iter().map(announcement).collect()
}

pub(super) fn announcement(row: &Row) -> Result<Announcement, StoreError> {
    let Json(body) = row.try_get::<_, Json<Box<RawValue>>>("body")?;
    Ok(Announcement {
        id: row.try_get("id")?,
        routing_key: row.try_get("routing_key")?,
        reply_to: row.try_get("reply_to")?,
        correlation_id: row.try_get("correlation_id")?,
        body,
    })
}

impl Store {
    /// Takes a bounded number of events whose writer has not published them in time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_announcements(&self) -> Result<Vec<Announcement>, StoreError> {
        query(&self.client().await?, TAKE_DUE, &[]).await?.iter().map(announcement).collect()
    }
}
