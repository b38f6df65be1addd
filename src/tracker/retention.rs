//! Retention of the product's tables: deletes old service-hook events, old history of groups and
//! expired secrets. Each statement deletes a bounded number of rows, oldest first.

use time::OffsetDateTime;

use super::{Tracker, TrackerFault, execute, registry};

/// The maximum number of rows that one statement deletes.
const BATCH: i64 = 5000;

impl Tracker {
    /// Deletes events seen before `before`. Returns `true` if more may be left. A repetition of a
    /// deleted event is harmless: the present state of the work item decides.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn forget_events(&self, before: OffsetDateTime) -> Result<bool, TrackerFault> {
        const SQL: &str = "
            DELETE FROM seen_events
            WHERE (integration_id, event_id) IN (
                SELECT integration_id, event_id FROM seen_events WHERE seen_at < $1 ORDER BY seen_at LIMIT $2 FOR UPDATE SKIP LOCKED)";
        self.forget(SQL, before).await
    }

    /// Deletes the history of groups' assignees and statuses before `before`. Returns `true` if
    /// more may be left.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn forget_history(&self, before: OffsetDateTime) -> Result<bool, TrackerFault> {
        // Ids ascend with time.
        const SQL: &str = "
            DELETE FROM group_history
            WHERE id IN (SELECT id FROM (SELECT id, at FROM group_history ORDER BY id LIMIT $2) oldest WHERE at < $1)";
        self.forget(SQL, before).await
    }

    /// Deletes groups' activities before `before`. Returns `true` if more may be left.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn forget_activities(&self, before: OffsetDateTime) -> Result<bool, TrackerFault> {
        const SQL: &str = "
            DELETE FROM activities
            WHERE id IN (SELECT id FROM (SELECT id, at FROM activities ORDER BY id LIMIT $2) oldest WHERE at < $1)";
        self.forget(SQL, before).await
    }

    /// Deletes expired secrets of service hooks and destinations, and returns how many.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn forget_secrets(&self, now: OffsetDateTime) -> Result<u64, TrackerFault> {
        registry::forget_secrets(&self.client().await?, now).await
    }

    /// Runs a deletion with a custom plan, so that Postgres plans for the present table, not for
    /// the one at the time of connecting.
    async fn forget(&self, sql: &str, before: OffsetDateTime) -> Result<bool, TrackerFault> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        tx.batch_execute(
            "SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off",
        )
        .await?;
        let gone = execute(&tx, sql, &[&before, &BATCH]).await?;
        tx.commit().await?;
        Ok(i64::try_from(gone) == Ok(BATCH))
    }
}
