//! Parks waiting jobs whose deadline passes.

use super::error::StoreError;
use super::handle::Store;
use super::parked::{ParkedJob, mark_parked};
use super::sql::query;
use crate::fault::{DEADLINE_HINT, codes};

/// Maximum number of jobs parked in one transaction.
const JOBS: i64 = 500;

/// A job that waits for its follow-ups is not parked: its own stages are done.
pub(super) const OVERDUE: &str = "
    WITH overdue AS MATERIALIZED (
        SELECT id FROM jobs WHERE state = 'waiting' AND wait_reason <> 'children' AND deadline < now()
        ORDER BY deadline LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET state = 'parked', epoch = epoch + 1, wait_reason = NULL, wait_key = NULL, wait_observed = NULL,
        error_code = $2, error_message = 'its deadline passed while it waited (' || wait_reason || ')',
        error_hint = $3, first_failed_at = now()
    FROM overdue WHERE jobs.id = overdue.id
    RETURNING jobs.id, pipeline, stage, error_message";

impl Store {
    /// Parks waiting jobs whose deadline has passed, a bounded number at a time. Returns whether
    /// there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn park_overdue(&self) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let rows = query(
            &tx,
            OVERDUE,
            &[&JOBS, &codes::DEADLINE_EXCEEDED, &DEADLINE_HINT],
        )
        .await?;
        let parked = rows
            .iter()
            .map(ParkedJob::of)
            .collect::<Result<Vec<_>, StoreError>>()?;
        mark_parked(&tx, codes::DEADLINE_EXCEEDED, &parked).await?;
        tx.commit().await?;
        Ok(i64::try_from(parked.len()) == Ok(JOBS))
    }
}
