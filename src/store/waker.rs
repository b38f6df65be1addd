//! What maintenance looks for besides: causes that are gone, deadlines that have passed.

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::Store;
use super::announcements::announce_parked;
use super::commit::{CommitError, Tables, Writer};
use super::error::StoreError;
use super::sql::{query, query_one};
use crate::job::JobId;

/// At most this many rows are moved in one transaction.
pub(super) const BATCH: i64 = 500;

/// Makes due the oldest jobs that wait for a key.
pub(super) const RELEASE: &str = "SELECT release_waiting($1, $2, $3) AS released";

const CAUSES: &str = "
    SELECT wait_key, wait_observed FROM (
        SELECT DISTINCT wait_key, wait_observed FROM jobs
        WHERE state = 'waiting' AND wait_reason NOT IN ('children', 'configuration', 'version') AND wait_key NOT LIKE 'hold:%') causes
    ORDER BY random() LIMIT $1";

const OVERDUE: &str = "
    UPDATE jobs SET state = 'parked', epoch = epoch + 1, wait_reason = NULL, wait_key = NULL, wait_observed = NULL,
        error_code = 'deadline_exceeded', error_message = 'its deadline passed while it waited (' || wait_reason || ')',
        error_hint = 'Publish the job again with a later deadline, or retry it now by hand.', first_failed_at = now(),
        fingerprint = 'deadline_exceeded:' || pipeline || ':' || stage
    WHERE id IN (SELECT id FROM jobs WHERE state = 'waiting' AND deadline < now() AND wait_reason <> 'children'
        ORDER BY deadline LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING id";

impl Store {
    /// Makes due a bounded number of rows that wait for `key`. Returns how many; call again while it is not 0.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release(&self, key: &str) -> Result<u64, StoreError> {
        released_by(&self.client().await?, key, BATCH, None).await
    }

    /// As [`Store::release`], until none is left that waits for `key`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was released before stays so.
    pub async fn release_all(&self, key: &str) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            match self.release(key).await? {
                0 => return Ok(all),
                some => all += some,
            }
        }
    }

    /// Parks waiting jobs whose deadline has passed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn park_overdue(&self) -> Result<usize, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let parked = ids(&query(&tx, OVERDUE, &[&BATCH]).await?)?;
        announce_parked(&tx, &parked).await?;
        tx.commit().await?;
        Ok(parked.len())
    }
}

impl<T: Tables> Writer<T> {
    /// Tests again every cause that a machine can test, but holds, whose jobs are let go step by step; releases the jobs whose
    /// cause is gone. Returns how many.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn retest_causes(&self) -> Result<u64, CommitError> {
        let mut client = self.store().client().await?;
        let mut released = 0;
        for row in query(&client, CAUSES, &[&BATCH]).await? {
            let key: String = row.try_get("wait_key")?;
            let observed: i64 = row.try_get::<_, Option<i64>>("wait_observed")?.unwrap_or_default();
            let tx = client.transaction().await?;
            let present = self.tables().cause_present(&tx, &key, observed).await.map_err(CommitError::Changes)?;
            if present == Some(false) {
                released += released_by(&tx, &key, BATCH, Some(observed)).await?;
            }
            tx.commit().await?;
        }
        Ok(released)
    }
}

/// Makes due at most `most` rows that wait for `key`, of those that saw it so where `seen` is given.
pub(super) async fn released_by<C: GenericClient>(on: &C, key: &str, most: i64, seen: Option<i64>) -> Result<u64, StoreError> {
    let row = query_one(on, RELEASE, &[&key, &most, &seen]).await?;
    Ok(u64::try_from(row.try_get::<_, i64>("released")?).unwrap_or_default())
}

fn ids(rows: &[tokio_postgres::Row]) -> Result<Vec<JobId>, StoreError> {
    rows.iter().map(|row| Ok(JobId(row.try_get::<_, Uuid>("id")?))).collect()
}
