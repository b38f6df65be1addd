//! The monthly partitions of the jobs' history (`checkpoints`, `attempts`, `effects`). They are
//! created ahead of time, filled with the rows of the default partitions, and dropped as a whole
//! when no job of their month is left. Each change of a partition is a function of the schema
//! (V16), which waits 200 ms for a lock, in a transaction of its own. A worker owns none of the
//! tables and may call the functions.

use time::{Duration, OffsetDateTime};
use tokio_postgres::Client;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{query, query_one};
use super::turns::Turn;

/// Number of months after the current one that have partitions.
const AHEAD: i32 = 3;
/// How long after the end of a month its partitions may be dropped: by then, clocks and long
/// transactions agree that it is over.
const OVER_FOR: Duration = Duration::days(7);
/// Maximum number of partitions dropped in one call.
const DROPS: i64 = 48;

const MISSING: &str = "SELECT parent, month FROM missing_partitions($1, $2)";
const MAKE: &str = "SELECT make_partition($1, $2) AS done";
/// The order makes the planner use the index, whatever it expects to find.
const OVER: &str = "
    SELECT parent, name FROM history_partitions() p
    WHERE high <= first_job_id_of($1) AND (SELECT true FROM jobs WHERE id >= p.low AND id < p.high ORDER BY id LIMIT 1) IS NULL
    ORDER BY low, parent LIMIT $2";
const DROP: &str = "SELECT drop_partition($1, $2, $3) AS done";

/// For a connection without prepared statements; uses the database's clock.
const MISSING_NOW: &str = "SELECT parent, month FROM missing_partitions(now(), $1)";

impl Store {
    /// Creates the partitions of this month and the next three, moves rows from the default
    /// partitions into those of their months, and drops partitions of past months without jobs.
    /// `now` is this machine's clock. Returns whether more is left: call again at once. If a lock
    /// is not granted, or another replica does the same, the call returns `false` and leaves the
    /// rest to the next one.
    ///
    /// # Errors
    /// [`StoreError::Clocks`] if Postgres' clock differs by more than 10 minutes: nothing is done
    /// then; otherwise [`StoreError`].
    pub async fn keep_partitions(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        Ok(self
            .in_turn(Turn::Partitions, now, self.keep_in_turn(now))
            .await?
            .unwrap_or(false))
    }

    async fn keep_in_turn(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        let client = self.client().await?;
        for row in query(&client, MISSING, &[&now, &AHEAD]).await? {
            let (parent, month): (String, OffsetDateTime) =
                (row.try_get("parent")?, row.try_get("month")?);
            let done: String = query_one(&client, MAKE, &[&parent, &month])
                .await?
                .try_get("done")?;
            if !say(&done, &parent, &month.date().to_string()) {
                return Ok(false);
            }
        }
        let before = now - OVER_FOR;
        let over = query(&client, OVER, &[&before, &DROPS]).await?;
        for row in &over {
            let (parent, name): (String, String) = (row.try_get("parent")?, row.try_get("name")?);
            let done: String = query_one(&client, DROP, &[&parent, &name, &before])
                .await?
                .try_get("done")?;
            if !say(&done, &parent, &name) {
                return Ok(false);
            }
        }
        Ok(i64::try_from(over.len()) == Ok(DROPS))
    }
}

/// Creates the missing partitions on a migration's connection. If a lock is not granted, the
/// workers create them later.
pub(super) async fn make_missing(client: &Client) -> Result<(), StoreError> {
    for row in client.query(MISSING_NOW, &[&AHEAD]).await? {
        let (parent, month): (String, OffsetDateTime) =
            (row.try_get("parent")?, row.try_get("month")?);
        let done: String = client
            .query_one(MAKE, &[&parent, &month])
            .await?
            .try_get("done")?;
        if !say(&done, &parent, &month.date().to_string()) {
            break;
        }
    }
    Ok(())
}

/// Logs what was done to a partition. Returns `false` if the others must wait, too.
fn say(done: &str, parent: &str, which: &str) -> bool {
    match done {
        "made" | "dropped" => tracing::info!(parent, which, "partition {done}"),
        "busy" => tracing::warn!(
            parent,
            which,
            "partition postponed: a lock was not granted within 200 ms"
        ),
        "elsewhere" => {}
        "crowded" => tracing::warn!(
            parent,
            which,
            "partition not made: the default partition holds too many rows of its month to move them now; they stay there and \
             are found; run `SELECT make_partition('{parent}', '{which}', 100000000)` in a quiet hour"
        ),
        "taken" => tracing::warn!(
            parent,
            which,
            "partition not made: another table has its name; rename or drop that one"
        ),
        "refused" => tracing::warn!(
            parent,
            which,
            "partition not made: a worker may make those of the next four months and of past months with rows, 160 in all; its rows \
             stay in the default partition; run `SELECT make_partition('{parent}', '{which}')` as the owner"
        ),
        // Exists, gone, young or needed: another process was faster.
        _ => {}
    }
    !matches!(done, "busy" | "elsewhere")
}
