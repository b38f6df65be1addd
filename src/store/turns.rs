//! Duties that only one replica at a time carries out, and only if its clock agrees with
//! Postgres': most of them drop or delete data because of its age.

use time::{Duration, OffsetDateTime};

use super::error::StoreError;
use super::handle::Store;
use super::sql::query_one;

/// The largest difference between the clocks.
const APART: Duration = Duration::minutes(10);

/// A duty of one replica at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Creates, fills and drops partitions.
    Partitions,
    /// Deletes data that is older than the settings permit.
    Retention,
    /// Writes failure groups.
    FailureGroups,
}

impl Turn {
    /// Returns the number of its advisory lock. 0 is the lock of a migration, 1 the lock for
    /// creating or dropping one partition.
    const fn number(self) -> i32 {
        match self {
            Self::Partitions => 2,
            Self::Retention => 3,
            Self::FailureGroups => 4,
        }
    }
}

/// Held by a transaction that does nothing else, so that a replica that dies releases it.
const TAKE: &str =
    "SELECT pg_try_advisory_xact_lock(7264019, $1) AS taken, clock_timestamp() AS now";

impl Store {
    /// Runs `work`, unless another replica currently carries out the same duty: returns `None`
    /// then. `now` is this machine's clock.
    ///
    /// # Errors
    /// [`StoreError::Clocks`] if Postgres' clock differs by more than 10 minutes: nothing is done
    /// then. Otherwise errors of `work`, and [`StoreError`].
    pub async fn in_turn<T, E: From<StoreError>>(
        &self,
        turn: Turn,
        now: OffsetDateTime,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<Option<T>, E> {
        let mut client = self.client().await?;
        let held = client.transaction().await.map_err(StoreError::from)?;
        let row = query_one(&held, TAKE, &[&turn.number()]).await?;
        let database: OffsetDateTime = row.try_get("now").map_err(StoreError::from)?;
        let taken: bool = row.try_get("taken").map_err(StoreError::from)?;
        let clocks_agree = (database - now).abs() <= APART;
        if !clocks_agree || !taken {
            held.rollback().await.map_err(StoreError::from)?;
            return if clocks_agree {
                Ok(None)
            } else {
                Err(StoreError::Clocks {
                    worker: now,
                    database,
                }
                .into())
            };
        }
        let done = work.await;
        // Awaited, so that the lock is free for the next turn. If the connection was lost, the
        // lock is free already.
        drop(held.rollback().await);
        done.map(Some)
    }
}
