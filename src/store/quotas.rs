//! How much a producer or an organization has, counted by an index alone and up to its quota; and what each replica may still make.
//!
//! **Invariant:** who is given room of a quota counts under the quota's lock, with what the others were given; so replicas together
//! make no more than the quota has, save what a write brings that takes longer than its grant.

use std::time::Duration;

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::Store;
use super::error::StoreError;
use super::sql::{execute, query, query_one};
use crate::job::ReplicaId;
use crate::quota::{Amount, Amounts, Asked, Grant, Holder, Kind, Over};

/// A replica that may make no more without asking.
#[derive(Debug)]
pub struct QuotaAsk<'a> {
    /// Whose quota.
    pub holder: &'a Holder,
    /// Of what: [`Kind::Open`] and [`Kind::Later`] for jobs.
    pub kind: Kind,
    /// The holder's quotas.
    pub limits: &'a Amounts,
    /// Who asks.
    pub replica: ReplicaId,
    /// What it is making: given before, and not known to be stored.
    pub making: Amount,
    /// What it needs at least.
    pub need: Amount,
}

/// Others count a grant for so much longer than it lasts: writes that began at its end are stored by then.
const GRACE: Duration = Duration::from_secs(8);
/// Rows of each kind that are counted where no quota bounds it.
const SHOWN: i64 = 1_000_000;
/// Grants that are forgotten in one statement.
const FORGOTTEN: i64 = 1000;

/// Rows and bytes by kind, of at most `$1` jobs, which are given by a query of `state`, `due_at`, `epoch` and `bytes`.
macro_rules! jobs_by_kind {
    ($with:literal, $jobs:literal) => {
        concat!(
            $with,
            "SELECT kind, count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM (
                SELECT CASE WHEN state IN ('waiting', 'parked') THEN 'waiting'
                    WHEN state = 'ready' AND epoch = 0 AND due_at > now() THEN 'later' ELSE 'open' END AS kind, bytes
                FROM (",
            $jobs,
            " LIMIT $1) counted) kinds
            GROUP BY kind"
        )
    };
}

pub(super) const JOBS_OF_PRODUCER: &str = jobs_by_kind!(
    "",
    "SELECT state, due_at, epoch, bytes FROM jobs WHERE finished_at IS NULL AND producer = $2 ORDER BY producer, organization"
);
pub(super) const JOBS_WITHOUT_PRODUCER: &str = jobs_by_kind!(
    "",
    "SELECT state, due_at, epoch, bytes FROM jobs WHERE finished_at IS NULL AND producer IS NULL ORDER BY producer, organization"
);
/// Hops from producer to producer; nulls are last in the index.
pub(super) const JOBS_OF_ORGANIZATION: &str = jobs_by_kind!(
    "WITH RECURSIVE producers AS (
        (SELECT producer, 1 AS hop FROM jobs WHERE finished_at IS NULL AND producer > '' ORDER BY producer LIMIT 1)
        UNION ALL
        SELECT next.producer, p.hop + 1 FROM producers p CROSS JOIN LATERAL (
            SELECT producer FROM jobs WHERE finished_at IS NULL AND producer > p.producer ORDER BY producer LIMIT 1) next
        WHERE p.hop < 10000
    ) ",
    "SELECT state, due_at, epoch, bytes FROM producers CROSS JOIN LATERAL (
        SELECT state, due_at, epoch, bytes FROM jobs
        WHERE finished_at IS NULL AND jobs.producer = producers.producer AND organization = $2
        ORDER BY producer, organization) of_producer
    UNION ALL
    (SELECT state, due_at, epoch, bytes FROM jobs WHERE finished_at IS NULL AND producer IS NULL AND organization = $2
        ORDER BY producer, organization)"
);

/// Rows and bytes of at most `$1` dead letters or keys.
macro_rules! all_of {
    ($kind:literal, $bytes:literal, $from:literal) => {
        concat!(
            "SELECT '",
            $kind,
            "' AS kind, count(*) AS rows, coalesce(sum(bytes), 0)::bigint AS bytes FROM (SELECT ",
            $bytes,
            " AS bytes FROM ",
            $from,
            " ORDER BY producer LIMIT $1) counted"
        )
    };
}

pub(super) const LETTERS_OF_PRODUCER: &str =
    all_of!("dead_letters", "kept_bytes", "dead_letters WHERE resolved_at IS NULL AND producer = $2");
pub(super) const LETTERS_WITHOUT_PRODUCER: &str =
    all_of!("dead_letters", "kept_bytes", "dead_letters WHERE resolved_at IS NULL AND producer IS NULL");
pub(super) const KEYS_OF_PRODUCER: &str = all_of!("keys", "0", "job_keys WHERE job_id IS NULL AND producer = $2");
pub(super) const KEYS_WITHOUT_PRODUCER: &str = all_of!("keys", "0", "job_keys WHERE job_id IS NULL AND producer IS NULL");

/// Of one quota: who comes second sees what the first one has given itself.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7264020, hashtext($1))";

const REPLICAS: &str = "SELECT count(*) AS replicas FROM replicas WHERE ended_at IS NULL AND alive_until > now()";

/// What was given, but to this replica of the kind that it asks for.
pub(super) const PROMISED: &str = "
    SELECT kind, sum(rows)::bigint AS rows, sum(bytes)::bigint AS bytes FROM quota_grants
    WHERE holder = $1 AND until > now() AND NOT (kind = $2 AND replica = $3)
    GROUP BY kind";

const PROMISE: &str = "
    INSERT INTO quota_grants (holder, kind, replica, rows, bytes, until)
    VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6 * interval '1 second')
    ON CONFLICT (holder, kind, replica) DO UPDATE SET rows = excluded.rows, bytes = excluded.bytes, until = excluded.until";

pub(super) const FORGET: &str = "
    DELETE FROM quota_grants WHERE (holder, kind, replica) IN (
        SELECT holder, kind, replica FROM quota_grants WHERE until < now() - interval '1 hour' ORDER BY until LIMIT $1)";

impl Store {
    /// Gives a replica room of a quota, or says that there is none. What it was given before is replaced.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is given then.
    pub async fn ask_quota(&self, ask: &QuotaAsk<'_>) -> Result<Result<Grant, Over>, StoreError> {
        let (holder, kind) = (ask.holder.key(), ask.kind.word());
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        query_one(&tx, LOCK, &[&holder]).await?;
        let used = count(&tx, ask.holder, ask.kind, most(ask.limits, ask.kind)).await?;
        let mut promised = Amounts::default();
        add(&mut promised, &query(&tx, PROMISED, &[&holder, &kind, &ask.replica.0]).await?)?;
        *promised.of_mut(ask.kind) = promised.of(ask.kind).plus(ask.making);
        let replicas: i64 = query_one(&tx, REPLICAS, &[]).await?.try_get("replicas")?;
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        let asked = Asked { holder: ask.holder, limits: ask.limits, used, promised, replicas, need: ask.need };
        let granted = asked.grant(ask.kind);
        let (given, lasts) = granted.as_ref().map_or_else(|_| Default::default(), |grant| (grant.amount, grant.lasts()));
        let promise = ask.making.plus(given);
        let (rows, bytes, until) = (number(promise.rows), number(promise.bytes), (lasts + GRACE).as_secs_f64());
        execute(&tx, PROMISE, &[&holder, &kind, &ask.replica.0, &rows, &bytes, &until]).await?;
        tx.commit().await?;
        Ok(granted)
    }

    /// What a producer or an organization has now, each kind counted up to a million rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quota_used(&self, holder: &Holder) -> Result<Amounts, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let mut used = count(&tx, holder, Kind::Open, SHOWN).await?;
        for kind in [Kind::DeadLetters, Kind::Keys] {
            *used.of_mut(kind) = count(&tx, holder, kind, SHOWN).await?.of(kind);
        }
        Ok(used)
    }

    /// Deletes some grants that are over. `true`: there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_grants(&self) -> Result<bool, StoreError> {
        let forgotten = execute(&self.client().await?, FORGET, &[&FORGOTTEN]).await?;
        Ok(i64::try_from(forgotten) == Ok(FORGOTTEN))
    }
}

/// What a holder has of a kind, or, of jobs, of all their kinds; of dead letters and keys an organization has none.
async fn count(tx: &Transaction<'_>, holder: &Holder, kind: Kind, most: i64) -> Result<Amounts, StoreError> {
    let (of_producer, without_producer, of_organization) = match kind {
        Kind::Open | Kind::Later | Kind::Waiting => (JOBS_OF_PRODUCER, JOBS_WITHOUT_PRODUCER, Some(JOBS_OF_ORGANIZATION)),
        Kind::DeadLetters => (LETTERS_OF_PRODUCER, LETTERS_WITHOUT_PRODUCER, None),
        Kind::Keys => (KEYS_OF_PRODUCER, KEYS_WITHOUT_PRODUCER, None),
    };
    let rows = match (holder, of_organization) {
        (Holder::Producer(Some(name)), _) => query(tx, of_producer, &[&most, name]).await?,
        (Holder::Producer(None), _) => query(tx, without_producer, &[&most]).await?,
        (Holder::Organization(name), Some(sql)) => query(tx, sql, &[&most, name]).await?,
        (Holder::Organization(_), None) => Vec::new(),
    };
    let mut used = Amounts::default();
    add(&mut used, &rows)?;
    Ok(used)
}

/// Rows to count: one more than all quotas of the rows' table have.
fn most(limits: &Amounts, kind: Kind) -> i64 {
    let rows = |kind: &Kind| limits.of(*kind).rows;
    let kinds: &[Kind] = match kind {
        Kind::Open | Kind::Later | Kind::Waiting => &[Kind::Open, Kind::Later, Kind::Waiting],
        Kind::DeadLetters => &[Kind::DeadLetters],
        Kind::Keys => &[Kind::Keys],
    };
    number(kinds.iter().map(rows).fold(1, u64::saturating_add))
}

fn add(to: &mut Amounts, rows: &[Row]) -> Result<(), StoreError> {
    for row in rows {
        let (kind, rows, bytes): (String, i64, i64) = (row.try_get("kind")?, row.try_get("rows")?, row.try_get("bytes")?);
        let Some(kind) = Kind::ALL.into_iter().find(|one| one.word() == kind) else { continue };
        let amount = Amount { rows: rows.unsigned_abs(), bytes: bytes.unsigned_abs() };
        *to.of_mut(kind) = to.of(kind).plus(amount);
    }
    Ok(())
}

fn number(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
