//! Tests again whether the causes that jobs wait for are still present, and begins to release the
//! jobs of those that are gone.

use super::commit::{CommitError, Tables, Writer};
use super::releases::begin;
use super::sql::query;

/// Maximum number of causes tested in one round.
const CAUSES_AT_ONCE: i32 = 100;

/// The position of a pass over all causes; the caller keeps it between rounds.
#[derive(Debug, Clone, Default)]
pub struct CauseCursor {
    key: String,
    observed: i64,
}

/// Walks from cause to cause along the index, so that a cause with many jobs costs no more than
/// another.
pub(super) const CAUSES: &str = "
    WITH RECURSIVE causes AS (
        (SELECT wait_key, wait_observed, wait_reason, 1 AS number FROM jobs
        WHERE state = 'waiting' AND wait_reason <> 'children' AND (wait_key, wait_observed) > ($1, $2)
        ORDER BY wait_key, wait_observed LIMIT 1)
        UNION ALL
        SELECT next.wait_key, next.wait_observed, next.wait_reason, c.number + 1 FROM causes c CROSS JOIN LATERAL (
            SELECT wait_key, wait_observed, wait_reason FROM jobs
            WHERE state = 'waiting' AND wait_reason <> 'children' AND (wait_key, wait_observed) > (c.wait_key, c.wait_observed)
            ORDER BY wait_key, wait_observed LIMIT 1) next
        WHERE c.number < $3
    )
    SELECT wait_key, wait_observed, wait_reason IN ('configuration', 'version') OR wait_key LIKE 'hold:%' AS has_no_test
    FROM causes ORDER BY number";

impl<T: Tables> Writer<T> {
    /// Tests a bounded number of causes again, from the cursor on, and begins to release the jobs
    /// of those that are gone. Returns whether there are more; after the last one, the cursor is
    /// at the beginning again. Skips causes that cannot be tested, and holds, whose jobs are
    /// released in batches.
    ///
    /// # Errors
    /// [`CommitError`]; the cursor is then after the cause that could not be tested.
    pub async fn retest_causes(&self, at: &mut CauseCursor) -> Result<bool, CommitError> {
        let mut client = self.store().client().await?;
        let causes = query(&client, CAUSES, &[&at.key, &at.observed, &CAUSES_AT_ONCE]).await?;
        for row in &causes {
            at.key = row.try_get("wait_key")?;
            at.observed = row
                .try_get::<_, Option<i64>>("wait_observed")?
                .unwrap_or_default();
            if row.try_get("has_no_test")? {
                continue;
            }
            let tx = client.transaction().await?;
            let present = self
                .tables()
                .cause_present(&tx, &at.key, at.observed)
                .await
                .map_err(CommitError::Changes)?;
            if present == Some(false) {
                let released = begin(&tx, &at.key, Some(at.observed)).await?;
                tracing::info!(
                    cause = at.key,
                    released,
                    "a cause is gone; the jobs that wait for it are released"
                );
            }
            tx.commit().await?;
        }
        let more = i32::try_from(causes.len()) == Ok(CAUSES_AT_ONCE);
        if !more {
            *at = CauseCursor::default();
        }
        Ok(more)
    }
}
