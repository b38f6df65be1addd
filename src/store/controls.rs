//! Holds, and the pause of the whole fleet. Workers place holds of destinations, people place all
//! kinds; all replicas see them, and the jobs that wait for one are released in small batches when
//! it ends.
//!
//! A hold is a row of `controls` of the kind `hold` or `circuit`, the pause one of the kind
//! `pause`. Jobs wait for the key `hold:<scope>`.

use std::time::Duration;

use deadpool_postgres::Transaction;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::releases::released_by;
use super::sql::{query, query_one, query_opt};

/// Prefix of the wait key.
const KEY: &str = "hold:";
/// Maximum number of controls in force that are read.
pub(super) const LIVE: i64 = 10_000;
/// Maximum number of keys that one round handles.
const KEYS: i32 = 64;
/// Jobs released at once if the row of the hold no longer exists.
const FORGOTTEN: i32 = 64;

/// A hold in force, as commands print it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HoldRow {
    /// `<organization>|<provider>|<host or destination id>`, with the suffix `#seats` if only a
    /// permit is missing; or `*|<provider>|<name>` for everything that the provider limits
    /// together. Or `lane:<lane>`, `stage:<pipeline>/<stage>`, `organization:<slug>`,
    /// `provider:<provider>`; `all` for the pause.
    pub scope: String,
    /// `hold`; `circuit` if the circuit breaker of the destination is open; `pause`.
    pub kind: String,
    /// The reason.
    pub reason: String,
    /// `replica 7`, or a person.
    pub who: String,
    /// Whether a worker placed it.
    pub automatic: bool,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: OffsetDateTime,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub expires_at: OffsetDateTime,
    /// The database's clock when the row was read.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub now: OffsetDateTime,
    /// Number of jobs that wait for it.
    pub waiting: CappedCount,
}

/// A control in force, as workers read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveControl {
    /// Its number.
    pub id: i64,
    /// `pause`, `hold`, `kill_switch` or `circuit`.
    pub kind: String,
    /// As [`HoldRow::scope`].
    pub scope: String,
    /// The matcher of a kill switch, as JSON.
    pub matcher: Option<String>,
    /// The reason.
    pub reason: String,
    /// `replica 7`, or a person.
    pub who: String,
    /// Whether a worker placed it.
    pub automatic: bool,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// The database's clock when the row was read.
    pub now: OffsetDateTime,
}

impl LiveControl {
    /// Returns how long it still lasts.
    #[must_use]
    pub fn left(&self) -> Duration {
        Duration::try_from(self.expires_at - self.now).unwrap_or_default()
    }
}

/// A hold that a worker places.
#[derive(Debug, Clone, Copy)]
pub struct NewHold<'a> {
    /// As [`HoldRow::scope`].
    pub scope: &'a str,
    /// Whether the destination's circuit breaker is open.
    pub is_circuit: bool,
    /// The reason.
    pub reason: &'a str,
    /// The worker that places it.
    pub who: &'a str,
    /// Length from now on, by the database's clock.
    pub length: Duration,
}

/// A hold in force is never shortened, and keeps its reason and its author until a longer one
/// replaces them. A hold that has ended begins again.
pub(super) const PLACE: &str = "
    INSERT INTO controls (kind, scope, reason, who, automatic, expires_at)
    VALUES ($1, $2, $3, $4, true, now() + $5 * interval '1 second')
    ON CONFLICT (kind, scope) WHERE automatic DO UPDATE SET
        expires_at = CASE WHEN controls.released_at IS NULL THEN greatest(controls.expires_at, excluded.expires_at)
            ELSE excluded.expires_at END,
        created_at = CASE WHEN controls.released_at IS NULL AND controls.expires_at > now() THEN controls.created_at ELSE now() END,
        reason = CASE WHEN controls.released_at IS NULL AND controls.expires_at >= excluded.expires_at THEN controls.reason
            ELSE excluded.reason END,
        who = CASE WHEN controls.released_at IS NULL AND controls.expires_at >= excluded.expires_at THEN controls.who
            ELSE excluded.who END,
        released_at = NULL, step = 0, stepped_at = NULL
    RETURNING extract(epoch FROM expires_at - now())::float8 AS seconds";

/// The position of a pass over the keys of all holds; the caller keeps it between rounds.
#[derive(Debug, Clone, Default)]
pub struct HoldCursor(String);

/// The columns of a [`HoldRow`], and the condition for a hold in force.
macro_rules! live {
    ($waiting:expr, $condition:literal) => {
        concat!(
            "SELECT c.scope, c.kind, c.reason, c.who, c.automatic, c.created_at, c.expires_at, now() AS now, ",
            $waiting,
            " AS waiting FROM controls c
            WHERE c.kind IN ('hold', 'circuit', 'pause') AND c.released_at IS NULL AND c.expires_at > now()",
            $condition
        )
    };
}

/// The controls of people come first: however many destinations are held, none of them is left out.
pub(super) const IN_FORCE: &str = "
    SELECT c.id, c.kind, c.scope, c.matcher::text AS matcher, c.reason, c.who, c.automatic, c.expires_at, now() AS now
    FROM controls c WHERE c.released_at IS NULL AND c.expires_at > now() ORDER BY c.automatic, c.expires_at DESC LIMIT $1";

/// Counts the jobs that wait for `c`, up to `$1`.
macro_rules! waiting {
    () => {
        "(SELECT count(*) FROM (SELECT FROM jobs j
            WHERE j.state = 'waiting' AND j.wait_reason <> 'children' AND j.wait_key = 'hold:' || c.scope LIMIT $1) counted)"
    };
}

pub(super) const SHOWN: &str = live!(waiting!(), " ORDER BY c.expires_at DESC LIMIT $2");

pub(super) const OF_SCOPE: &str = live!(
    waiting!(),
    " AND c.scope = $2 ORDER BY c.expires_at DESC LIMIT 1"
);

pub(super) const PRESENT: &str = "
    SELECT id FROM controls
    WHERE scope = $1 AND kind IN ('hold', 'circuit', 'pause') AND released_at IS NULL AND expires_at > clock_timestamp()
    FOR SHARE";

pub(super) const END: &str = "
    UPDATE controls SET released_at = now()
    WHERE scope = $1 AND kind IN ('hold', 'circuit', 'pause') AND released_at IS NULL AND expires_at > now()
    RETURNING reason";

/// Walks from key to key along the index. A hold that a person has ended counts as over one second
/// later, when every replica has seen it. The row of the last hold that ended counts the batches.
pub(super) const OVER: &str = "
    WITH RECURSIVE keys AS (
        (SELECT wait_key, 1 AS number FROM jobs WHERE state = 'waiting' AND wait_reason = 'hold' AND wait_key > $1
        ORDER BY wait_key LIMIT 1)
        UNION ALL
        SELECT next.wait_key, k.number + 1 FROM keys k CROSS JOIN LATERAL (
            SELECT wait_key FROM jobs WHERE state = 'waiting' AND wait_reason = 'hold' AND wait_key > k.wait_key
            ORDER BY wait_key LIMIT 1) next
        WHERE k.number < $2
    )
    SELECT k.wait_key, ended.id AS control, k.wait_key LIKE 'hold:%' AND coalesce(ended.at <= now(), true)
        AND coalesce(ended.stepped_at <= now() - interval '900 milliseconds', true) AS is_over
    FROM keys k LEFT JOIN LATERAL (
        SELECT c.id, c.stepped_at, coalesce(c.released_at + interval '1 second', c.expires_at) AS at FROM controls c
        WHERE c.scope = substr(k.wait_key, 6) AND c.kind IN ('hold', 'circuit', 'pause')
        ORDER BY at DESC LIMIT 1) ended ON true
    ORDER BY k.number";

/// Releases four jobs first and twice as many each time, up to 64 for one destination and up to 512
/// for a wider scope, whose jobs have many destinations. Only one replica steps within 900 ms.
pub(super) const STEP: &str = "
    UPDATE controls SET step = CASE WHEN step = 0 THEN 4 ELSE least(step * 2, CASE WHEN scope LIKE '%|%' THEN 64 ELSE 512 END) END, stepped_at = now()
    WHERE id = $1 AND (stepped_at IS NULL OR stepped_at <= now() - interval '900 milliseconds')
    RETURNING step";

impl Store {
    /// Places a hold of a worker. Returns how long the hold lasts now; it is never shortened.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn place_hold(&self, new: &NewHold<'_>) -> Result<Duration, StoreError> {
        let kind = if new.is_circuit { "circuit" } else { "hold" };
        let seconds = new.length.as_secs_f64();
        let row = query_one(
            &self.client().await?,
            PLACE,
            &[&kind, &new.scope, &new.reason, &new.who, &seconds],
        )
        .await?;
        Ok(Duration::try_from_secs_f64(row.try_get("seconds")?).unwrap_or_default())
    }

    /// Returns the controls in force, those of people first, up to a limit.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn live_controls(&self) -> Result<Vec<LiveControl>, StoreError> {
        query(&self.client().await?, IN_FORCE, &[&LIVE])
            .await?
            .iter()
            .map(live_control)
            .collect()
    }

    /// Returns the holds in force for people, the longest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holds(&self) -> Result<Vec<HoldRow>, StoreError> {
        query(&self.client().await?, SHOWN, &[&CappedCount::ROWS, &LIVE])
            .await?
            .iter()
            .map(hold_row)
            .collect()
    }

    /// Returns the hold that jobs with this wait key wait for, if it is in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_of(&self, wait_key: &str) -> Result<Option<HoldRow>, StoreError> {
        let Some(scope) = wait_key.strip_prefix(KEY) else {
            return Ok(None);
        };
        query_opt(
            &self.client().await?,
            OF_SCOPE,
            &[&CappedCount::ROWS, &scope],
        )
        .await?
        .as_ref()
        .map(hold_row)
        .transpose()
    }

    /// Makes due some of the jobs whose hold has ended: one batch for each of a bounded number of
    /// keys, from the cursor on. Returns whether there are more keys; after the last one, the
    /// cursor is at the beginning again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn step_after_holds(&self, at: &mut HoldCursor) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let keys = query(&client, OVER, &[&at.0, &KEYS]).await?;
        for key in &keys {
            at.0 = key.try_get("wait_key")?;
            if key.try_get("is_over")? {
                let tx = client.transaction().await?;
                step(&tx, &at.0, key.try_get("control")?).await?;
                tx.commit().await?;
            }
        }
        let more = i32::try_from(keys.len()) == Ok(KEYS);
        if !more {
            *at = HoldCursor::default();
        }
        Ok(more)
    }
}

/// Ends every hold of a scope, or the pause, and returns their reasons. Runs in a transaction of the caller,
/// which writes the audit row in it.
///
/// # Errors
/// [`StoreError`].
pub async fn end_holds(tx: &Transaction<'_>, scope: &str) -> Result<Vec<String>, StoreError> {
    let ended = query(tx, END, &[&scope]).await?;
    Ok(ended
        .iter()
        .map(|row| row.try_get("reason"))
        .collect::<Result<_, _>>()?)
}

/// Releases the next batch of jobs that wait for a hold which has ended; the row of the hold
/// determines its size.
async fn step(tx: &Transaction<'_>, key: &str, control: Option<i64>) -> Result<(), StoreError> {
    let jobs: i32 = match control {
        None => FORGOTTEN,
        Some(control) => match query_opt(tx, STEP, &[&control]).await? {
            Some(row) => row.try_get("step")?,
            None => return Ok(()),
        },
    };
    released_by(tx, key, i64::from(jobs)).await?;
    Ok(())
}

/// Returns whether the hold `key` is in force; its rows stay locked against a release until the
/// transaction ends. `None` for another kind of cause.
pub(super) async fn hold_present(
    tx: &Transaction<'_>,
    key: &str,
) -> Result<Option<bool>, StoreError> {
    let Some(scope) = key.strip_prefix(KEY) else {
        return Ok(None);
    };
    Ok(Some(!query(tx, PRESENT, &[&scope]).await?.is_empty()))
}

fn hold_row(row: &Row) -> Result<HoldRow, StoreError> {
    Ok(HoldRow {
        scope: row.try_get("scope")?,
        kind: row.try_get("kind")?,
        reason: row.try_get("reason")?,
        who: row.try_get("who")?,
        automatic: row.try_get("automatic")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        now: row.try_get("now")?,
        waiting: CappedCount::of(row.try_get("waiting")?),
    })
}

fn live_control(row: &Row) -> Result<LiveControl, StoreError> {
    Ok(LiveControl {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        scope: row.try_get("scope")?,
        matcher: row.try_get("matcher")?,
        reason: row.try_get("reason")?,
        who: row.try_get("who")?,
        automatic: row.try_get("automatic")?,
        expires_at: row.try_get("expires_at")?,
        now: row.try_get("now")?,
    })
}
