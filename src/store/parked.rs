//! What jobs that a duty or a person parks have in common: their fingerprints and their events.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;
use uuid::Uuid;

use super::announcements::announce_parked;
use super::error::StoreError;
use super::sql::{execute, query_one};
use crate::fault::{FailureKind, fingerprint};
use crate::job::JobId;

/// A job that was parked in this transaction.
pub(super) struct ParkedJob {
    id: JobId,
    pipeline: String,
    stage: String,
    message: String,
}

pub(super) const FINGERPRINTS: &str = "
    UPDATE jobs SET fingerprint = given.fingerprint FROM unnest($1::uuid[], $2::text[]) AS given (id, fingerprint)
    WHERE jobs.id = given.id";

impl ParkedJob {
    pub(super) fn of(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: JobId(row.try_get::<_, Uuid>("id")?),
            pipeline: row.try_get("pipeline")?,
            stage: row.try_get("stage")?,
            message: row.try_get("error_message")?,
        })
    }

    fn kind<'a>(&'a self, code: &'a str) -> FailureKind<'a> {
        FailureKind {
            pipeline: &self.pipeline,
            stage: &self.stage,
            code,
            destination: None,
        }
    }
}

const PARK: &str = "
    UPDATE jobs SET state = 'parked', epoch = epoch + 1, owner = NULL, woken_at = NULL, wait_reason = NULL, wait_key = NULL,
        wait_observed = NULL, error_code = $2, error_message = $3, error_hint = $4, first_failed_at = coalesce(first_failed_at, now())
    WHERE id = $1
    RETURNING id, pipeline, stage, error_message";

/// Parks a locked job for a person, and announces it. A running job is taken from its owner.
///
/// # Errors
/// [`StoreError`].
pub async fn park(
    tx: &Transaction<'_>,
    id: JobId,
    code: &str,
    message: &str,
    hint: &str,
) -> Result<(), StoreError> {
    let row = query_one(tx, PARK, &[&id.0, &code, &message, &hint]).await?;
    mark_parked(tx, code, &[ParkedJob::of(&row)?]).await
}

/// Gives jobs that are parked with `code` their fingerprints, which only [`fingerprint`] makes, and
/// announces them.
pub(super) async fn mark_parked(
    tx: &Transaction<'_>,
    code: &str,
    parked: &[ParkedJob],
) -> Result<(), StoreError> {
    if parked.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = parked.iter().map(|job| job.id.0).collect();
    let fingerprints: Vec<String> = parked
        .iter()
        .map(|job| fingerprint(&job.kind(code), &job.message))
        .collect();
    execute(tx, FINGERPRINTS, &[&ids, &fingerprints]).await?;
    let ids: Vec<JobId> = parked.iter().map(|job| job.id).collect();
    announce_parked(tx, &ids).await
}
