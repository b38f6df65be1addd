//! The usage of a producer or an organization, counted with an index only and up to its quota; and
//! the grants of the replicas.
//!
//! **Invariant:** a quota is granted under the quota's lock, from a count of the rows and of the
//! other replicas' grants; all replicas together exceed a quota only by writes that take longer
//! than their grant.

use std::time::Duration;

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query, query_one};
use crate::job::ReplicaId;
use crate::quota::{Amount, Amounts, Asked, Grant, Holder, Kind, Over};

/// A request of a replica whose grant is used up.
#[derive(Debug)]
pub struct QuotaAsk<'a> {
    /// Holder of the quota.
    pub holder: &'a Holder,
    /// Kind of the quota: [`Kind::Open`] or [`Kind::Later`] for jobs.
    pub kind: Kind,
    /// The holder's quotas.
    pub limits: &'a Amounts,
    /// The replica that asks.
    pub replica: ReplicaId,
    /// The amount it is writing: granted before, and not known to be stored.
    pub making: Amount,
    /// The minimum amount that must fit.
    pub need: Amount,
}

/// Others count a grant for this much longer than it lasts, so that writes which began at its end
/// are stored by then.
const GRACE: Duration = Duration::from_secs(8);
/// Maximum number of rows of each kind that are counted without a quota.
const SHOWN: i64 = 1_000_000;
/// Maximum number of grants that one statement deletes.
const FORGOTTEN: i64 = 1000;

/// Counts rows and bytes by kind of at most `$1` jobs; the query returns `state`, `due_at`,
/// `epoch` and `bytes`.
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
/// Walks from producer to producer; nulls are last in the index.
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

/// Counts rows and bytes of at most `$1` dead letters or keys.
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

pub(super) const LETTERS_OF_PRODUCER: &str = all_of!(
    "dead_letters",
    "kept_bytes",
    "dead_letters WHERE resolved_at IS NULL AND producer = $2"
);
pub(super) const LETTERS_WITHOUT_PRODUCER: &str = all_of!(
    "dead_letters",
    "kept_bytes",
    "dead_letters WHERE resolved_at IS NULL AND producer IS NULL"
);
pub(super) const KEYS_OF_PRODUCER: &str = all_of!(
    "keys",
    "0",
    "job_keys WHERE job_id IS NULL AND producer = $2"
);
pub(super) const KEYS_WITHOUT_PRODUCER: &str = all_of!(
    "keys",
    "0",
    "job_keys WHERE job_id IS NULL AND producer IS NULL"
);

/// Locks one quota: the next replica sees what the previous one was granted.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7264020, hashtext($1))";

const REPLICAS: &str =
    "SELECT count(*) AS replicas FROM replicas WHERE ended_at IS NULL AND alive_until > now()";

/// Sums up the grants, except this replica's grant of the kind that it asks for.
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
    /// Grants a replica a part of a quota, which replaces its previous grant; or returns the quota
    /// that is exceeded.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is granted then.
    pub async fn ask_quota(&self, ask: &QuotaAsk<'_>) -> Result<Result<Grant, Over>, StoreError> {
        let (holder, kind) = (ask.holder.key(), ask.kind.word());
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        query_one(&tx, LOCK, &[&holder]).await?;
        let used = count(&tx, ask.holder, ask.kind, most(ask.limits, ask.kind)).await?;
        let mut promised = Amounts::default();
        add(
            &mut promised,
            &query(&tx, PROMISED, &[&holder, &kind, &ask.replica.0]).await?,
        )?;
        *promised.of_mut(ask.kind) = promised.of(ask.kind).plus(ask.making);
        let replicas: i64 = query_one(&tx, REPLICAS, &[]).await?.try_get("replicas")?;
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        let asked = Asked {
            holder: ask.holder,
            limits: ask.limits,
            used,
            promised,
            replicas,
            need: ask.need,
        };
        let granted = asked.grant(ask.kind);
        let (given, lasts) = granted.as_ref().map_or_else(
            |_| Default::default(),
            |grant| (grant.amount, grant.lasts()),
        );
        let promise = ask.making.plus(given);
        let (rows, bytes, until) = (
            number(promise.rows),
            number(promise.bytes),
            (lasts + GRACE).as_secs_f64(),
        );
        execute(
            &tx,
            PROMISE,
            &[&holder, &kind, &ask.replica.0, &rows, &bytes, &until],
        )
        .await?;
        tx.commit().await?;
        Ok(granted)
    }

    /// Returns the usage of a producer or an organization, each kind counted up to a million rows.
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

    /// Deletes some grants that have ended. Returns whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_grants(&self) -> Result<bool, StoreError> {
        let forgotten = execute(&self.client().await?, FORGET, &[&FORGOTTEN]).await?;
        Ok(i64::try_from(forgotten) == Ok(FORGOTTEN))
    }
}

/// Returns the usage of a kind; for jobs, of all their kinds. An organization has no dead letters
/// and no keys.
async fn count(
    tx: &Transaction<'_>,
    holder: &Holder,
    kind: Kind,
    most: i64,
) -> Result<Amounts, StoreError> {
    let (of_producer, without_producer, of_organization) = match kind {
        Kind::Open | Kind::Later | Kind::Waiting => (
            JOBS_OF_PRODUCER,
            JOBS_WITHOUT_PRODUCER,
            Some(JOBS_OF_ORGANIZATION),
        ),
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

/// Returns how many rows to count: one more than all quotas for rows of this table.
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
        let (kind, rows, bytes): (String, i64, i64) = (
            row.try_get("kind")?,
            row.try_get("rows")?,
            row.try_get("bytes")?,
        );
        let Some(kind) = Kind::ALL.into_iter().find(|one| one.word() == kind) else {
            continue;
        };
        let amount = Amount {
            rows: rows.unsigned_abs(),
            bytes: bytes.unsigned_abs(),
        };
        *to.of_mut(kind) = to.of(kind).plus(amount);
    }
    Ok(())
}

fn number(of: u64) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
