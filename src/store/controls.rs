//! Holds of destinations: placed by workers and by people, known to all replicas, and the jobs that wait for them let go a few
//! at a time when they are over.
//!
//! A hold is a row of `controls` of the kind `hold` or `circuit`. Jobs wait for the key `hold:<scope>`.

use std::time::Duration;

use deadpool_postgres::Transaction;
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::Store;
use super::actions::{Actor, write_audit};
use super::count::CappedCount;
use super::error::StoreError;
use super::releases::released_by;
use super::sql::{query, query_one, query_opt};

/// How the key begins that jobs wait for.
const KEY: &str = "hold:";
/// Holds in force that are read, at most.
const LIVE: i64 = 10_000;
/// Keys that are looked at in one round, at most.
const KEYS: i32 = 64;
/// Jobs let go at once where nobody remembers the hold.
const FORGOTTEN: i32 = 64;

/// A hold in force, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HoldRow {
    /// `<organization>|<provider>|<host or destination id>`; with `#seats` behind it where nothing is missing but a seat; of all
    /// that the other side limits together `*|<provider>|<what they have in common>`.
    pub scope: String,
    /// `hold`, or `circuit` where the destination has failed.
    pub kind: String,
    /// Why.
    pub reason: String,
    /// `replica 7`, or a person.
    pub who: String,
    /// Whether a worker has placed it.
    pub automatic: bool,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// Of the database, when this was read.
    #[serde(with = "time::serde::rfc3339")]
    pub now: OffsetDateTime,
    /// Jobs that wait for it.
    pub waiting: CappedCount,
}

/// A hold that a worker places.
#[derive(Debug, Clone, Copy)]
pub struct NewHold<'a> {
    /// As [`HoldRow::scope`].
    pub scope: &'a str,
    /// Whether the destination's circuit is open.
    pub is_circuit: bool,
    /// Why.
    pub reason: &'a str,
    /// Who places it.
    pub who: &'a str,
    /// From now on, by the database's clock.
    pub length: Duration,
}

impl HoldRow {
    /// How long it still lasts.
    #[must_use]
    pub fn left(&self) -> Duration {
        Duration::try_from(self.expires_at - self.now).unwrap_or_default()
    }
}

/// One that is in force is never shortened, and says why and who until a longer one comes; one that is over begins anew.
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

const PLACE_BY_HAND: &str = "
    INSERT INTO controls (kind, scope, reason, who, expires_at)
    VALUES ('hold', $1, $2, $3, now() + $4 * interval '1 second')
    RETURNING expires_at";

/// Where a pass over the keys of all holds stands; the caller keeps it between rounds.
#[derive(Debug, Clone, Default)]
pub struct HoldCursor(String);

/// The columns of a [`HoldRow`], and what makes a hold one that is in force.
macro_rules! live {
    ($waiting:expr, $condition:literal) => {
        concat!(
            "SELECT c.scope, c.kind, c.reason, c.who, c.automatic, c.created_at, c.expires_at, now() AS now, ",
            $waiting,
            " AS waiting FROM controls c
            WHERE c.kind IN ('hold', 'circuit') AND c.released_at IS NULL AND c.expires_at > now()",
            $condition
        )
    };
}

pub(super) const IN_FORCE: &str = live!("0::bigint", " ORDER BY c.expires_at DESC LIMIT $1");

/// How many jobs wait for `c`, at most `$1`.
macro_rules! waiting {
    () => {
        "(SELECT count(*) FROM (SELECT FROM jobs j
            WHERE j.state = 'waiting' AND j.wait_reason <> 'children' AND j.wait_key = 'hold:' || c.scope LIMIT $1) counted)"
    };
}

pub(super) const SHOWN: &str = live!(waiting!(), " ORDER BY c.expires_at DESC LIMIT $2");

pub(super) const OF_SCOPE: &str = live!(waiting!(), " AND c.scope = $2 ORDER BY c.expires_at DESC LIMIT 1");

pub(super) const PRESENT: &str = "
    SELECT id FROM controls
    WHERE scope = $1 AND kind IN ('hold', 'circuit') AND released_at IS NULL AND expires_at > clock_timestamp()
    FOR SHARE";

pub(super) const END: &str = "
    UPDATE controls SET released_at = now()
    WHERE scope = $1 AND kind IN ('hold', 'circuit') AND released_at IS NULL AND expires_at > now()
    RETURNING reason";

/// Hops from key to key along the index. A hold that was ended by hand counts as over a second later, when every replica has
/// seen it; the last one to end keeps count of the steps.
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
        WHERE c.scope = substr(k.wait_key, 6) AND c.kind IN ('hold', 'circuit')
        ORDER BY at DESC LIMIT 1) ended ON true
    ORDER BY k.number";

/// Four jobs first, twice as many each time, 64 at most. Who comes second in the same second does not step.
pub(super) const STEP: &str = "
    UPDATE controls SET step = CASE WHEN step = 0 THEN 4 ELSE least(step * 2, 64) END, stepped_at = now()
    WHERE id = $1 AND (stepped_at IS NULL OR stepped_at <= now() - interval '900 milliseconds')
    RETURNING step";

impl Store {
    /// Places a worker's hold. How long it lasts now: not shorter than one that was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn place_hold(&self, new: &NewHold<'_>) -> Result<Duration, StoreError> {
        let kind = if new.is_circuit { "circuit" } else { "hold" };
        let seconds = new.length.as_secs_f64();
        let row = query_one(&self.client().await?, PLACE, &[&kind, &new.scope, &new.reason, &new.who, &seconds]).await?;
        Ok(Duration::try_from_secs_f64(row.try_get("seconds")?).unwrap_or_default())
    }

    /// Every hold in force, without who waits for it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn live_holds(&self) -> Result<Vec<HoldRow>, StoreError> {
        query(&self.client().await?, IN_FORCE, &[&LIVE]).await?.iter().map(hold_row).collect()
    }

    /// The holds in force for people, those that last longest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holds(&self) -> Result<Vec<HoldRow>, StoreError> {
        query(&self.client().await?, SHOWN, &[&CappedCount::ROWS, &LIVE]).await?.iter().map(hold_row).collect()
    }

    /// The hold that jobs with this wait key wait for, while it is in force.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold_of(&self, wait_key: &str) -> Result<Option<HoldRow>, StoreError> {
        let Some(scope) = wait_key.strip_prefix(KEY) else { return Ok(None) };
        query_opt(&self.client().await?, OF_SCOPE, &[&CappedCount::ROWS, &scope]).await?.as_ref().map(hold_row).transpose()
    }

    /// Holds a destination because a person says so, for `length` from now on. Until when.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn hold(&self, scope: &str, length: Duration, actor: &Actor) -> Result<OffsetDateTime, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let reason = actor.reason.as_deref().unwrap_or_default();
        let row = query_one(&tx, PLACE_BY_HAND, &[&scope, &reason, &actor.who, &length.as_secs_f64()]).await?;
        let until: OffsetDateTime = row.try_get("expires_at")?;
        let after = json!({"scope": scope, "seconds": length.as_secs()});
        write_audit(&tx, actor, "hold.place", None, &json!(null), &after).await?;
        tx.commit().await?;
        Ok(until)
    }

    /// Ends every hold of a destination. How many there were; where there was none, nothing is written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_holds(&self, scope: &str, actor: &Actor) -> Result<usize, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let ended = query(&tx, END, &[&scope]).await?;
        if !ended.is_empty() {
            let reasons: Vec<String> = ended.iter().map(|row| row.try_get("reason")).collect::<Result<_, _>>()?;
            let before = json!({"scope": scope, "reasons": reasons});
            write_audit(&tx, actor, "hold.release", None, &before, &json!({"scope": scope})).await?;
        }
        tx.commit().await?;
        Ok(ended.len())
    }

    /// Makes due some of the jobs whose hold is over, destination by destination: one step of each among a bounded number of
    /// keys, from the cursor on. Whether there are more; after the last one the cursor is at the beginning again.
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

/// Lets go some of the jobs that wait for a hold which is over, as many as it is the turn of its row.
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

/// Whether the hold `key` is in force, whose rows stay locked against a release until the transaction ends. `None`: it is
/// another cause.
pub(super) async fn hold_present(tx: &Transaction<'_>, key: &str) -> Result<Option<bool>, StoreError> {
    let Some(scope) = key.strip_prefix(KEY) else { return Ok(None) };
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
