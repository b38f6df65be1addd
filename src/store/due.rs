//! Rows for the waker: due rows without a wake-up, in turn by organization; and the stamps that
//! record which replica woke a row.
//!
//! A stamp is `woken_at` and `woken_by`: this replica publishes a wake-up for this row. A stamp is
//! removed if the wake-up was not published, if its outcome is unknown, or if its replica has
//! ended.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query, query_one, query_opt};
use crate::job::{Epoch, JobId, ReplicaId};

/// Maximum number of organizations that one look visits. An organization without a due row costs
/// one index entry.
const HOPS: i32 = 500;
/// Maximum number of stamps that one statement removes.
const STAMPS: i64 = 1000;

/// The position in the circle of a pipeline's organizations where the next look begins, and the
/// time from which rows are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circle {
    after: String,
    /// Rows due before this time were all taken in the last circle.
    floor: Option<OffsetDateTime>,
    /// The earliest row of the current circle so far.
    earliest: Option<OffsetDateTime>,
    /// When the last circle that read all rows began.
    whole: Option<Instant>,
}

/// How often a circle reads all rows: a row may become due again with an earlier time than those
/// that are left (after a takeover, or when a stamp is removed).
const WHOLE_EVERY: Duration = Duration::from_secs(5);

impl Circle {
    /// Returns whether the next look begins with the first organization.
    #[must_use]
    pub const fn begins(&self) -> bool {
        self.after.is_empty()
    }

    /// Returns the time from which rows are read; `None` for all rows.
    fn from(&mut self) -> Option<OffsetDateTime> {
        if self.begins() {
            let is_whole = self
                .whole
                .is_none_or(|whole| whole.elapsed() >= WHOLE_EVERY);
            if is_whole {
                (self.whole, self.floor) = (Some(Instant::now()), None);
            }
            self.earliest = None;
        }
        self.floor
    }

    /// Records a look that ended at `last` and saw no row before `earliest`.
    fn looked(&mut self, ends: bool, last: Option<String>, earliest: OffsetDateTime) {
        self.earliest = self.earliest.into_iter().chain([earliest]).min();
        self.after = if ends {
            String::new()
        } else {
            last.unwrap_or_default()
        };
        if ends {
            self.floor = self.earliest;
        }
    }
}

/// Result of one look at a pipeline's organizations.
#[derive(Debug)]
pub struct Page {
    /// The stamped rows; the caller publishes their wake-ups.
    pub jobs: Vec<JobId>,
    /// Whether the last organization was visited: the next look begins with the first one.
    pub ends_circle: bool,
}

/// Takes organizations in turn: the first due row of each, then the second of each. The recursion
/// walks from organization to organization along `jobs_not_woken`, beginning after `$3`, until it
/// has found as many organizations with a due row as rows are requested. A look therefore reads no
/// more than a small multiple of what it takes, however many organizations and rows there are. The
/// rows are read again by their keys, with conditions that match no partial index: a planner with
/// the statistics of an empty table would read the whole of that index for each row.
///
/// Rows before `$6` are not read: while a dump holds its snapshot, the index keeps an entry for
/// each row that was woken since the dump began, and the oldest entries come first. The next
/// circle skips rows before the first one that is left, or before now, less 5 s for transactions
/// that have begun and not committed.
pub(super) const DUE: &str = "
    WITH RECURSIVE organizations AS (
        (SELECT organization, due_at, 1 AS hop, (due_at <= now())::int AS found FROM jobs
            WHERE pipeline = $1 AND state = 'ready' AND woken_at IS NULL AND organization > $3 AND due_at >= $6
            ORDER BY organization, due_at LIMIT 1)
        UNION ALL
        SELECT next.organization, next.due_at, o.hop + 1, o.found + (next.due_at <= now())::int
        FROM organizations o CROSS JOIN LATERAL (
            SELECT organization, due_at FROM jobs
            WHERE pipeline = $1 AND state = 'ready' AND woken_at IS NULL AND organization > o.organization AND due_at >= $6
            ORDER BY organization, due_at LIMIT 1) next
        WHERE o.hop < $4 AND o.found < $2::bigint
    ), found AS (
        SELECT organization, count(*) OVER () AS number FROM organizations WHERE due_at <= now()
    ), turns AS (
        SELECT due.id, due.turn FROM found CROSS JOIN LATERAL (
            SELECT id, row_number() OVER (ORDER BY due_at, id) AS turn FROM jobs
            WHERE pipeline = $1 AND organization = found.organization AND state = 'ready' AND woken_at IS NULL
                AND due_at >= $6 AND due_at <= now()
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
        least((SELECT min(due_at) FROM organizations), now()) - interval '5 seconds' AS earliest,
        (SELECT coalesce(max(hop), 0) < $4 AND coalesce(max(found), 0) < $2::bigint FROM organizations) AS ends_circle";

pub(super) const STALE: &str = "
    WITH locked AS (
        SELECT id FROM jobs WHERE pipeline = $1 AND state = 'ready' AND woken_at < now() - $3 * interval '1 second'
        ORDER BY woken_at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET woken_at = now(), woken_by = $4 FROM locked WHERE jobs.id = locked.id RETURNING jobs.id";

const UNWAKE: &str = "
    UPDATE jobs SET woken_at = NULL
    WHERE id IN (SELECT id FROM jobs WHERE id = ANY($1) AND state = 'ready' ORDER BY id FOR UPDATE)
    RETURNING epoch";

pub(super) const UNSTAMP_OF: &str = "
    WITH locked AS MATERIALIZED (
        SELECT id FROM jobs WHERE woken_by = $1 AND state = 'ready' AND woken_at <= now() - $3 * interval '1 second'
        LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET woken_at = NULL FROM locked WHERE jobs.id = locked.id RETURNING jobs.id";

/// Walks from replica to replica along `jobs_stamped`.
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
    /// Stamps up to `limit` due rows of a pipeline that have no wake-up, in turn by organization,
    /// and advances `circle`.
    ///
    /// # Errors
    /// [`StoreError`]; rows may be stamped nevertheless, see [`Store::unstamp`].
    pub async fn take_due(
        &self,
        pipeline: &str,
        limit: i64,
        me: ReplicaId,
        circle: &mut Circle,
    ) -> Result<Page, StoreError> {
        let from = circle.from().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let row = query_one(
            &self.client().await?,
            DUE,
            &[&pipeline, &limit, &circle.after, &HOPS, &me.0, &from],
        )
        .await?;
        let ids: Vec<Uuid> = row.try_get("ids")?;
        let ends_circle = row.try_get("ends_circle")?;
        circle.looked(ends_circle, row.try_get("last")?, row.try_get("earliest")?);
        Ok(Page {
            jobs: ids.into_iter().map(JobId).collect(),
            ends_circle,
        })
    }

    /// Stamps again rows that were woken more than `age` ago and not claimed since.
    ///
    /// # Errors
    /// [`StoreError`]; rows may be stamped nevertheless, see [`Store::unstamp`].
    pub async fn take_stale(
        &self,
        pipeline: &str,
        limit: i64,
        age: Duration,
        me: ReplicaId,
    ) -> Result<Vec<JobId>, StoreError> {
        let rows = query(
            &self.client().await?,
            STALE,
            &[&pipeline, &limit, &age.as_secs_f64(), &me.0],
        )
        .await?;
        rows.iter()
            .map(|row| Ok(JobId(row.try_get::<_, Uuid>("id")?)))
            .collect()
    }

    /// Removes the stamps of wake-ups that were not published: the waker publishes them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unwake(&self, jobs: &[JobId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.0).collect();
        execute(&self.client().await?, UNWAKE, &[&ids]).await?;
        Ok(())
    }

    /// Removes the stamp of a job that is ready, as [`Store::unwake`] does. Returns its epoch.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unwake_one(&self, job: JobId) -> Result<Option<Epoch>, StoreError> {
        let row = query_opt(&self.client().await?, UNWAKE, &[&[job.0].as_slice()]).await?;
        let epoch = row.map(|row| row.try_get("epoch").map(Epoch)).transpose()?;
        Ok(epoch)
    }

    /// Removes a bounded number of the stamps of `replica` that are older than `age`. A duplicate
    /// wake-up is harmless. Returns whether there are more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unstamp(&self, replica: ReplicaId, age: Duration) -> Result<bool, StoreError> {
        let taken = execute(
            &self.client().await?,
            UNSTAMP_OF,
            &[&replica.0, &STAMPS, &age.as_secs_f64()],
        )
        .await?;
        Ok(taken == STAMPS.unsigned_abs())
    }

    /// Removes a bounded number of stamps of replicas that have ended, of any age. Returns whether
    /// there are more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unstamp_ended(&self) -> Result<bool, StoreError> {
        Ok(
            execute(&self.client().await?, UNSTAMP_ENDED, &[&STAMPS]).await?
                == STAMPS.unsigned_abs(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_looks_from_the_first_row_that_was_left_and_at_all_rows_every_few_seconds() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut circle = Circle::default();
        assert_eq!(circle.from(), None, "the first one looks at all");
        circle.looked(false, Some("m".to_owned()), at(20));
        assert_eq!(circle.from(), None, "it goes on as it has begun");
        circle.looked(true, None, at(30));
        assert!(circle.begins());
        assert_eq!(circle.from(), Some(at(20)));
        circle.looked(true, Some("z".to_owned()), at(40));
        assert_eq!(circle.from(), Some(at(40)), "what was earlier is gone");
        circle.whole = Instant::now().checked_sub(WHOLE_EVERY);
        assert_eq!(circle.from(), None);
    }
}
