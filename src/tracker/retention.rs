//! What the product's tables keep for some time only: events of service hooks, what groups were, secrets that have ended. Each
//! statement deletes a bounded number of rows, from the old end.

use time::OffsetDateTime;

use super::{Tracker, TrackerFault, execute, registry};

/// Rows that one statement deletes, at most.
const BATCH: i64 = 5000;

impl Tracker {
    /// Forgets events seen before `before`. `true`: more may be left. A repetition of a forgotten event is harmless: the tracker's
    /// present state decides.
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

    /// Forgets what groups' assignees and statuses were before `before`. `true`: more may be left.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn forget_history(&self, before: OffsetDateTime) -> Result<bool, TrackerFault> {
        // Ids are in the order of time.
        const SQL: &str = "
            DELETE FROM group_history
            WHERE id IN (SELECT id FROM (SELECT id, at FROM group_history ORDER BY id LIMIT $2) oldest WHERE at < $1)";
        self.forget(SQL, before).await
    }

    /// Forgets groups' activities before `before`. `true`: more may be left.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn forget_activities(&self, before: OffsetDateTime) -> Result<bool, TrackerFault> {
        const SQL: &str = "
            DELETE FROM activities
            WHERE id IN (SELECT id FROM (SELECT id, at FROM activities ORDER BY id LIMIT $2) oldest WHERE at < $1)";
        self.forget(SQL, before).await
    }

    /// Forgets secrets of service hooks and destinations that have ended; says how many.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn forget_secrets(&self, now: OffsetDateTime) -> Result<u64, TrackerFault> {
        registry::forget_secrets(&self.client().await?, now).await
    }

    /// Planned for the table as it is now, not as it was when the connection was made.
    async fn forget(&self, sql: &str, before: OffsetDateTime) -> Result<bool, TrackerFault> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        tx.batch_execute("SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off").await?;
        let gone = execute(&tx, sql, &[&before, &BATCH]).await?;
        tx.commit().await?;
        Ok(i64::try_from(gone) == Ok(BATCH))
    }
}
