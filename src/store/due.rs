//! What the waker takes: rows that are due and not woken, organizations in turn; and the stamps that say who woke a row.
//!
//! A stamp is `woken_at` and `woken_by`: "this replica publishes a wake-up for this row". It is taken back where the wake-up was not
//! published, where nobody knows whether it was, and where its replica has ended.

use std::time::Duration;

use uuid::Uuid;

use super::Store;
use super::error::StoreError;
use super::sql::{execute, query, query_one};
use crate::job::{JobId, ReplicaId};

/// Organizations that one look visits, at most: what has no due row is passed over at the cost of one index entry.
const HOPS: i32 = 500;
/// Stamps that are taken back in one statement, at most.
const STAMPS: i64 = 1000;

/// Where in the circle of a pipeline's organizations the next look begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circle {
    after: String,
}

impl Circle {
    /// The next look begins with the first organization.
    #[must_use]
    pub const fn begins(&self) -> bool {
        self.after.is_empty()
    }
}

/// What one look at a pipeline's organizations took.
#[derive(Debug)]
pub struct Page {
    /// Rows stamped; the caller publishes their wake-ups.
    pub jobs: Vec<JobId>,
    /// The last organization was visited: the next look begins with the first one.
    pub ends_circle: bool,
}

/// Organizations in turn: the first due row of each, then the second of each. The recursion hops from organization to organization
/// along `jobs_not_woken`, beginning after `$3`, until it has found as many with a due row as rows are wanted; so a look reads no more
/// than a small multiple of what it takes, however many organizations and rows there are. The rows are looked at again by their keys:
/// in words that no partial index is of, since a planner that has seen the table empty would read all of that index for each.
pub(super) const DUE: &str = "
    WITH RECURSIVE organizations AS (
        (SELECT organization, due_at, 1 AS hop, (due_at <= now())::int AS found FROM jobs
            WHERE pipeline = $1 AND state = 'ready' AND woken_at IS NULL AND organization > $3
            ORDER BY organization, due_at LIMIT 1)
        UNION ALL
        SELECT next.organization, next.due_at, o.hop + 1, o.found + (next.due_at <= now())::int
        FROM organizations o CROSS JOIN LATERAL (
            SELECT organization, due_at FROM jobs
            WHERE pipeline = $1 AND state = 'ready' AND woken_at IS NULL AND organization > o.organization
            ORDER BY organization, due_at LIMIT 1) next
        WHERE o.hop < $4 AND o.found < $2::bigint
    ), found AS (
        SELECT organization, count(*) OVER () AS number FROM organizations WHERE due_at <= now()
    ), turns AS (
        SELECT due.id, due.turn FROM found CROSS JOIN LATERAL (
            SELECT id, row_number() OVER (ORDER BY due_at, id) AS turn FROM jobs
            WHERE pipeline = $1 AND organization = found.organization AND state = 'ready' AND woken_at IS NULL AND due_at <= now()
            ORDER BY due_at, id LIMIT ($2::bigint + found.number - 1) / found.number) due
        ORDER BY due.turn LIMIT $2::bigint
    ), locked AS (
        SELECT due.id FROM turns CROSS JOIN LATERAL (
            SELECT id FROM jobs WHERE jobs.id = turns.id AND state || '' = 'ready' AND woken_at IS NOT DISTINCT FROM NULL
            FOR UPDATE SKIP LOCKED) due
    ), stamped AS (
        UPDATE jobs SET woken_at = now(), woken_by = $5 FROM locked WHERE jobs.id = locked.id RETURNING jobs.id
    )
    SELECT array(SELECT id FROM stamped) AS ids, (SELECT organization FROM organizations ORDER BY hop DESC LIMIT 1) AS last,
        (SELECT coalesce(max(hop), 0) < $4 AND coalesce(max(found), 0) < $2::bigint FROM organizations) AS ends_circle";

pub(super) const STALE: &str = "
    WITH locked AS (
        SELECT id FROM jobs WHERE pipeline = $1 AND state = 'ready' AND woken_at < now() - $3 * interval '1 second'
        ORDER BY woken_at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET woken_at = now(), woken_by = $4 FROM locked WHERE jobs.id = locked.id RETURNING jobs.id";

const UNWAKE: &str = "
    UPDATE jobs SET woken_at = NULL
    WHERE id IN (SELECT id FROM jobs WHERE id = ANY($1) AND state = 'ready' ORDER BY id FOR UPDATE)";

pub(super) const UNSTAMP_OF: &str = "
    WITH locked AS MATERIALIZED (
        SELECT id FROM jobs WHERE woken_by = $1 AND state = 'ready' AND woken_at IS NOT NULL LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET woken_at = NULL FROM locked WHERE jobs.id = locked.id RETURNING jobs.id";

/// Hops from replica to replica along `jobs_stamped`.
pub(super) const UNSTAMP_ENDED: &str = "
    WITH RECURSIVE stampers AS (
        (SELECT woken_by FROM jobs WHERE state = 'ready' AND woken_at IS NOT NULL AND woken_by IS NOT NULL ORDER BY woken_by LIMIT 1)
        UNION ALL
        SELECT next.woken_by FROM stampers s CROSS JOIN LATERAL (
            SELECT woken_by FROM jobs WHERE state = 'ready' AND woken_at IS NOT NULL AND woken_by > s.woken_by
            ORDER BY woken_by LIMIT 1) next
    ), ended AS MATERIALIZED (
        SELECT woken_by FROM stampers
        WHERE (SELECT ended_at IS NULL FROM replicas WHERE replicas.id = stampers.woken_by) IS NOT TRUE
    ), locked AS MATERIALIZED (
        SELECT j.id FROM ended e CROSS JOIN LATERAL (
            SELECT id FROM jobs WHERE woken_by = e.woken_by AND state = 'ready' AND woken_at IS NOT NULL
            LIMIT $1 FOR UPDATE SKIP LOCKED) j
        LIMIT $1
    )
    UPDATE jobs SET woken_at = NULL WHERE id = ANY (ARRAY(SELECT id FROM locked)) RETURNING id";

impl Store {
    /// Stamps up to `limit` rows of a pipeline that are due and not woken, organizations in turn, and moves `circle` on.
    ///
    /// # Errors
    /// [`StoreError`]; rows may be stamped then: see [`Store::unstamp`].
    pub async fn take_due(&self, pipeline: &str, limit: i64, me: ReplicaId, circle: &mut Circle) -> Result<Page, StoreError> {
        let row = query_one(&self.client().await?, DUE, &[&pipeline, &limit, &circle.after, &HOPS, &me.0]).await?;
        let ids: Vec<Uuid> = row.try_get("ids")?;
        let ends_circle = row.try_get("ends_circle")?;
        let last: Option<String> = row.try_get("last")?;
        circle.after = if ends_circle { String::new() } else { last.unwrap_or_default() };
        Ok(Page { jobs: ids.into_iter().map(JobId).collect(), ends_circle })
    }

    /// Stamps again rows that were woken longer than `age` ago and not claimed since.
    ///
    /// # Errors
    /// [`StoreError`]; rows may be stamped then: see [`Store::unstamp`].
    pub async fn take_stale(&self, pipeline: &str, limit: i64, age: Duration, me: ReplicaId) -> Result<Vec<JobId>, StoreError> {
        let rows = query(&self.client().await?, STALE, &[&pipeline, &limit, &age.as_secs_f64(), &me.0]).await?;
        rows.iter().map(|row| Ok(JobId(row.try_get::<_, Uuid>("id")?))).collect()
    }

    /// Takes back the stamps of wake-ups that were not published: the waker publishes them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unwake(&self, jobs: &[JobId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        execute(&self.client().await?, UNWAKE, &[&ids]).await?;
        Ok(())
    }

    /// Takes back a bounded number of the stamps of `replica`, however old. A wake-up too many is harmless. `true`: there are more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unstamp(&self, replica: ReplicaId) -> Result<bool, StoreError> {
        Ok(execute(&self.client().await?, UNSTAMP_OF, &[&replica.0, &STAMPS]).await? == STAMPS.unsigned_abs())
    }

    /// Takes back a bounded number of stamps of replicas that have ended, however old. `true`: there are more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unstamp_ended(&self) -> Result<bool, StoreError> {
        Ok(execute(&self.client().await?, UNSTAMP_ENDED, &[&STAMPS]).await? == STAMPS.unsigned_abs())
    }
}
