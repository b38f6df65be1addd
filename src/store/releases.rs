//! Releases the jobs that wait for a cause when the cause is gone.
//!
//! The code that removes a cause calls `begin_release` in the same transaction. This makes the
//! first page of jobs due. If there are more, it inserts a release, a row of `releases`: any
//! replica advances it page by page, even if others die in between. A job that begins to wait at
//! that moment tests its cause in its own commit (see `commit`), so that none is left behind.
//! [`super::Writer::retest_causes`] finds jobs that are left nevertheless, or whose cause was removed in
//! another way.

use std::fmt;

use deadpool_postgres::{Client, GenericClient};
use uuid::Uuid;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query, query_one, query_opt};

/// Jobs of one release that are made due at once. A release advances once a second: 50,000 jobs
/// are released within two minutes. A larger page has no benefit, since the jobs are only made
/// ready: the waker wakes them in fair order among organizations, and the governor paces their
/// calls. A small page keeps transactions short, and other jobs' wake-ups do not wait behind a
/// burst of writes.
const PAGE: i64 = 500;
/// Maximum number of pages released in one round.
const ROUND: usize = 16;
/// Jobs that are released because a cause is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    /// Released at once.
    pub now: u64,
    /// Released within the next seconds or minutes, by any running worker.
    pub later: CappedCount,
}

impl fmt::Display for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.now)?;
        if self.later.is_zero() {
            Ok(())
        } else {
            write!(f, " now, {} more at {PAGE} a second", self.later)
        }
    }
}

pub(super) const BEGIN: &str = "SELECT begin_release($1, $2) AS released";

/// Makes due at most `$2` of the jobs that wait for a key.
pub(super) const RELEASE: &str = "SELECT release_waiting($1, $2) AS released";

/// Takes the release that has waited longest for its next page. A second replica takes another one
/// in the same second.
pub(super) const TURN: &str = "
    UPDATE releases SET next_at = now() + interval '1 second'
    WHERE cause = (SELECT cause FROM releases WHERE next_at <= now() ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING cause, up_to, after_observed, after_id";

pub(super) const STEP: &str =
    "SELECT done, last_observed, last_id FROM release_page($1, $2, $3, $4, $5)";

pub(super) const MOVE: &str =
    "UPDATE releases SET after_observed = $2, after_id = $3 WHERE cause = $1";

pub(super) const END: &str = "DELETE FROM releases WHERE cause = $1";

pub(super) const WAITING: &str = "
    SELECT (SELECT count(*) FROM (
        SELECT FROM jobs WHERE state = 'waiting' AND wait_reason <> 'children' AND wait_key = given.key LIMIT $2) counted) AS jobs
    FROM unnest($1::text[]) WITH ORDINALITY AS given (key, number) ORDER BY number";

impl Store {
    /// Begins to release the jobs that wait for `cause`, which is gone. Returns how many are
    /// released at once.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin_release(&self, cause: &str) -> Result<u64, StoreError> {
        begin(&self.client().await?, cause, None).await
    }

    /// Releases one page of each release that is due, up to a bounded number of releases. Returns
    /// whether others are due, too.
    ///
    /// # Errors
    /// [`StoreError`]; jobs released before the error stay so.
    pub async fn step_releases(&self) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        for _ in 0..ROUND {
            if !step(&mut client).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Counts the jobs that wait for a cause.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn waiting_for(&self, cause: &str) -> Result<CappedCount, StoreError> {
        waiting(&self.client().await?, cause).await
    }

    /// Counts the jobs that wait for each of these causes, in their order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn waiting_for_each(
        &self,
        causes: &[String],
    ) -> Result<Vec<CappedCount>, StoreError> {
        let rows = query(
            &self.client().await?,
            WAITING,
            &[&causes, &CappedCount::ROWS],
        )
        .await?;
        rows.iter()
            .map(|row| Ok(CappedCount::of(row.try_get("jobs")?)))
            .collect()
    }
}

/// Begins to release the jobs that wait for `cause`; with `seen`, those that observed at most this
/// version of it. Returns how many are released at once.
pub(super) async fn begin<C: GenericClient>(
    on: &C,
    cause: &str,
    seen: Option<i64>,
) -> Result<u64, StoreError> {
    counted(&query_one(on, BEGIN, &[&cause, &seen]).await?)
}

/// Begins to release all jobs that wait for `cause`, and counts those that follow.
pub(super) async fn begin_for_people<C: GenericClient>(
    on: &C,
    cause: &str,
) -> Result<Released, StoreError> {
    Ok(Released {
        now: begin(on, cause, None).await?,
        later: waiting(on, cause).await?,
    })
}

/// Makes due at most `most` rows that wait for `key`.
pub(super) async fn released_by<C: GenericClient>(
    on: &C,
    key: &str,
    most: i64,
) -> Result<u64, StoreError> {
    counted(&query_one(on, RELEASE, &[&key, &most]).await?)
}

/// Releases the next page of the release whose turn it is. Returns whether one was due.
async fn step(client: &mut Client) -> Result<bool, StoreError> {
    let tx = client.transaction().await?;
    let Some(turn) = query_opt(&tx, TURN, &[]).await? else {
        return Ok(false);
    };
    let (cause, up_to): (String, i64) = (turn.try_get("cause")?, turn.try_get("up_to")?);
    let (observed, id): (i64, Uuid) = (turn.try_get("after_observed")?, turn.try_get("after_id")?);
    let page = query_one(&tx, STEP, &[&cause, &up_to, &observed, &id, &PAGE]).await?;
    if page.try_get("done")? {
        execute(&tx, END, &[&cause]).await?;
    } else {
        let (observed, id): (i64, Uuid) =
            (page.try_get("last_observed")?, page.try_get("last_id")?);
        execute(&tx, MOVE, &[&cause, &observed, &id]).await?;
    }
    tx.commit().await?;
    Ok(true)
}

async fn waiting<C: GenericClient>(on: &C, cause: &str) -> Result<CappedCount, StoreError> {
    let row = query_one(on, WAITING, &[&[cause].as_slice(), &CappedCount::ROWS]).await?;
    Ok(CappedCount::of(row.try_get("jobs")?))
}

fn counted(row: &tokio_postgres::Row) -> Result<u64, StoreError> {
    Ok(u64::try_from(row.try_get::<_, i64>("released")?).unwrap_or_default())
}
