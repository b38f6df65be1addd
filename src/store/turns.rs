//! Duties that one replica at a time does, and only with a clock that agrees with Postgres': what is dropped or deleted because of
//! its age.

use time::{Duration, OffsetDateTime};

use super::Store;
use super::error::StoreError;
use super::sql::query_one;

/// Clocks that differ by more than this are not believed.
const APART: Duration = Duration::minutes(10);

/// A duty of one replica at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Making, draining and dropping partitions.
    Partitions,
    /// Deleting what is older than the settings say.
    Retention,
}

impl Turn {
    /// Of its advisory lock. 0 is a migration's, 1 the lock within which one partition is made or dropped.
    const fn number(self) -> i32 {
        match self {
            Self::Partitions => 2,
            Self::Retention => 3,
        }
    }
}

/// Held by a transaction that does nothing else, so that a replica which dies gives it back.
const TAKE: &str = "SELECT pg_try_advisory_xact_lock(7264019, $1) AS taken, clock_timestamp() AS now";

impl Store {
    /// Does `work` if no other replica does the same just now: `None`. `now` is this machine's clock.
    ///
    /// # Errors
    /// [`StoreError::Clocks`] where Postgres' clock is another by more than 10 minutes: nothing is done then. Else those of `work`,
    /// and [`StoreError`].
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
            return if clocks_agree { Ok(None) } else { Err(StoreError::Clocks { worker: now, database }.into()) };
        }
        let done = work.await;
        // Waited for, so that the next turn finds it given back. A connection that is lost has given it back itself.
        drop(held.rollback().await);
        done.map(Some)
    }
}
