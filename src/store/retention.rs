//! Deletes finished rows after some time, a bounded number at a time. A job is deleted together
//! with its key; its history is deleted with the partition of its month (`partitions`), or row by
//! row if it has no partition.
//!
//! **Invariant:** no round of deletions reads rows again that an earlier round of the same pass
//! has left; a walk along a primary key continues where it stopped, and every other deletion
//! starts at the old end of an index of rows that are over.

use std::time::Duration;

use deadpool_postgres::Transaction;
use time::OffsetDateTime;
use uuid::Uuid;

use super::actions::{JobChange, Target, cancel};
use super::audit::{Action, Actor, Role};
use super::error::StoreError;
use super::handle::Store;
use super::resolve::Resolution;
use super::sql::{execute, query, query_one, query_opt};
use crate::job::JobId;

/// How long finished rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Jobs with their keys, resolved dead letters and holds, since their end; events of service
    /// hooks, since they were received; failure groups without parked jobs, since they were last
    /// seen.
    pub jobs: Duration,
    /// Jobs that are parked or wait without a deadline, since their last progress, before they are
    /// cancelled; open dead letters before they are discarded.
    pub parked: Duration,
    /// Rows of the audit log, at least 365 days: Postgres refuses to delete younger ones.
    pub audit: Duration,
    /// Changes of groups' assignees and statuses, and the groups' activities.
    pub history: Duration,
    /// Rows of replicas, since their end.
    pub replicas: Duration,
}

/// Maximum number of rows that one statement reads or deletes.
const BATCH: i64 = 2000;
/// Maximum number of open dead letters that one round discards: each needs a transaction.
const LETTERS: i64 = 200;
/// How long a cancel that arrived before its job is kept.
const CANCELS: Duration = Duration::from_hours(30 * 24);

/// Makes every plan find rows by their keys and in their order, even if the statistics are those
/// of an empty table or of one that was just filled.
const BY_KEYS: &str = "
    SET LOCAL plan_cache_mode = force_custom_plan; SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off";

/// The condition for a job without progress since `$before` that is parked or waits without a
/// deadline. A job that waits for follow-ups continues when they are done.
macro_rules! given_up {
    ($before:literal) => {
        concat!(
            "(state = 'parked' OR (state = 'waiting' AND deadline IS NULL AND wait_reason <> 'children'))
            AND greatest(created_at, last_progress_at, due_at) < ",
            $before
        )
    };
}

const FORGET_JOBS: &str = concat!(
    "
    WITH walked AS MATERIALIZED (
        SELECT id, state, finished_at, wait_reason, deadline, created_at, last_progress_at, due_at FROM jobs
        WHERE id > $1 AND id < first_job_id_of(greatest($2::timestamptz, $3::timestamptz)) ORDER BY id LIMIT $4
    ), old AS MATERIALIZED (
        SELECT id, source, dedupe_key FROM jobs
        WHERE id = ANY (ARRAY(SELECT id FROM walked WHERE state IN ('succeeded', 'cancelled') AND finished_at < $2))
        FOR UPDATE SKIP LOCKED
    ), no_keys AS (
        DELETE FROM job_keys k USING old WHERE k.source = old.source AND k.dedupe_key = old.dedupe_key AND k.job_id = old.id
    ), no_inputs AS (
        DELETE FROM job_inputs WHERE job_id = ANY (ARRAY(SELECT id FROM old))
    ), gone AS (
        DELETE FROM jobs WHERE id = ANY (ARRAY(SELECT id FROM old)) RETURNING id
    )
    SELECT ARRAY(SELECT id FROM gone) AS gone, ARRAY(SELECT id FROM walked WHERE ",
    given_up!("$3"),
    ") AS given_up, CASE WHEN (SELECT count(*) FROM walked) = $4 THEN (SELECT id FROM walked ORDER BY id DESC LIMIT 1) END AS next"
);

const STILL_GIVEN_UP: &str = concat!("SELECT id FROM jobs WHERE id = $1 AND ", given_up!("$2"));

const RANGES: &str = "SELECT parent, low, high FROM history_partitions()";

/// The tables of the history, each with the statement that deletes the rows of some jobs.
const HISTORY: [(&str, &str); 3] = [
    (
        "checkpoints",
        "DELETE FROM checkpoints WHERE job_id = ANY ($1)",
    ),
    ("attempts", "DELETE FROM attempts WHERE job_id = ANY ($1)"),
    ("effects", "DELETE FROM effects WHERE job_id = ANY ($1)"),
];

const FORGET_CANCELS: &str = "
    DELETE FROM job_keys WHERE job_id IS NULL AND (source, dedupe_key) IN (SELECT source, dedupe_key FROM job_keys
        WHERE job_id IS NULL AND created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

const OPEN_LETTERS: &str = "
    SELECT id FROM (SELECT id, created_at FROM dead_letters WHERE resolved_at IS NULL ORDER BY id LIMIT $2) oldest
    WHERE created_at < $1";

const FORGET_LETTERS: &str = "
    DELETE FROM dead_letters WHERE id IN (SELECT id FROM dead_letters WHERE resolved_at < $1 ORDER BY resolved_at LIMIT $2
        FOR UPDATE SKIP LOCKED)";

/// The statement tests the condition again on the row itself: a worker may reuse an old row at the
/// same moment.
const FORGET_CONTROLS: &str = "
    WITH walked AS MATERIALIZED (SELECT id FROM controls WHERE id > $1 ORDER BY id LIMIT $3),
    gone AS (
        DELETE FROM controls WHERE id = ANY (ARRAY(SELECT id FROM walked))
            AND least(expires_at, coalesce(released_at, expires_at)) < $2
    )
    SELECT CASE WHEN count(*) = $3 THEN max(id) END AS next FROM walked";

const FORGET_REPLICAS: &str = "
    DELETE FROM replicas WHERE id IN (SELECT id FROM replicas r
        WHERE ended_at < $1 AND NOT EXISTS (SELECT FROM jobs WHERE owner = r.id AND state = 'running')
        ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

const FORGET_FAILURE_GROUPS: &str = "
    DELETE FROM failure_groups WHERE fingerprint IN (SELECT fingerprint FROM failure_groups seen
        WHERE last_seen_at < $1 AND NOT EXISTS (SELECT FROM jobs WHERE state = 'parked' AND fingerprint = seen.fingerprint)
        ORDER BY last_seen_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// A worker may not delete from the audit log. The owner's function does, for rows that are at
/// least a year old.
const PRUNE_AUDIT: &str = "SELECT prune_audit($1, $2) AS pruned";

impl Store {
    /// Processes the next jobs after `after` that are old enough: deletes jobs that are done, with
    /// their keys, and cancels jobs that are given up, with one audit row and one event each.
    /// Returns where to continue; `None` if there are no more jobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_jobs(
        &self,
        keep: &Keep,
        now: OffsetDateTime,
        after: Option<JobId>,
    ) -> Result<Option<JobId>, StoreError> {
        let (ended, given_up) = (now - keep.jobs, now - keep.parked);
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        tx.batch_execute(BY_KEYS).await?;
        let after = after.map_or(Uuid::nil(), |job| job.0);
        let row = query_one(&tx, FORGET_JOBS, &[&after, &ended, &given_up, &BATCH]).await?;
        forget_history(&tx, &row.try_get::<_, Vec<Uuid>>("gone")?).await?;
        tx.commit().await?;
        drop(client);
        for job in row.try_get::<_, Vec<Uuid>>("given_up")? {
            self.give_up(JobId(job), keep, given_up).await?;
        }
        Ok(row.try_get::<_, Option<Uuid>>("next")?.map(JobId))
    }

    /// Cancels a job as a person would, if it is still given up.
    async fn give_up(
        &self,
        job: JobId,
        keep: &Keep,
        before: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let (target, actor) = (Target::Id(job), retention(keep));
        self.change_job(
            &actor,
            Action::Cancel,
            &target,
            async |tx, locked| match query_opt(tx, STILL_GIVEN_UP, &[&job.0, &before]).await? {
                Some(_) => cancel(tx, locked).await,
                None => Ok(JobChange::Already),
            },
        )
        .await
        .map(drop)
    }

    /// Deletes cancels older than 30 days whose job never arrived. Returns whether there may be
    /// more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_cancels(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        self.forget(FORGET_CANCELS, now - CANCELS).await
    }

    /// Discards old open dead letters, with one audit row each. Returns whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn discard_old_letters(
        &self,
        keep: &Keep,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let old = query(
            &self.client().await?,
            OPEN_LETTERS,
            &[&(now - keep.parked), &LETTERS],
        )
        .await?;
        for row in &old {
            self.resolve(row.try_get("id")?, Resolution::Discarded, &retention(keep))
                .await?;
        }
        Ok(i64::try_from(old.len()) == Ok(LETTERS))
    }

    /// Deletes dead letters that were resolved long ago. Returns whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_letters(
        &self,
        keep: &Keep,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        self.forget(FORGET_LETTERS, now - keep.jobs).await
    }

    /// Processes the next holds after `after` and deletes those that ended long ago. Returns where
    /// to continue; `None` if there are no more holds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_holds(
        &self,
        keep: &Keep,
        now: OffsetDateTime,
        after: i64,
    ) -> Result<Option<i64>, StoreError> {
        let row = query_one(
            &self.client().await?,
            FORGET_CONTROLS,
            &[&after, &(now - keep.jobs), &BATCH],
        )
        .await?;
        Ok(row.try_get("next")?)
    }

    /// Deletes the rows of replicas that ended long ago and own no job. Returns whether there may
    /// be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_replicas(
        &self,
        keep: &Keep,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        self.forget(FORGET_REPLICAS, now - keep.replicas).await
    }

    /// Deletes failure groups that were last seen long ago and have no parked job. Returns whether
    /// there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_failure_groups(
        &self,
        keep: &Keep,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        self.forget(FORGET_FAILURE_GROUPS, now - keep.jobs).await
    }

    /// Deletes old rows of the audit log. Returns whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_audit(&self, keep: &Keep, now: OffsetDateTime) -> Result<bool, StoreError> {
        let pruned: i64 = query_one(
            &self.client().await?,
            PRUNE_AUDIT,
            &[&(now - keep.audit), &BATCH],
        )
        .await?
        .try_get("pruned")?;
        Ok(pruned == BATCH)
    }

    async fn forget(&self, sql: &str, before: OffsetDateTime) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        tx.batch_execute(BY_KEYS).await?;
        let gone = execute(&tx, sql, &[&before, &BATCH]).await?;
        tx.commit().await?;
        Ok(i64::try_from(gone) == Ok(BATCH))
    }
}

/// Deletes the history of the jobs whose month has no partition of its own.
async fn forget_history(tx: &Transaction<'_>, jobs: &[Uuid]) -> Result<(), StoreError> {
    if jobs.is_empty() {
        return Ok(());
    }
    let mut ranges: Vec<(String, Uuid, Uuid)> = Vec::new();
    for row in query(tx, RANGES, &[]).await? {
        ranges.push((
            row.try_get("parent")?,
            row.try_get("low")?,
            row.try_get("high")?,
        ));
    }
    for (table, sql) in HISTORY {
        let has_partition = |job: &Uuid| {
            ranges
                .iter()
                .any(|(parent, low, high)| parent == table && low <= job && job < high)
        };
        let rest: Vec<Uuid> = jobs
            .iter()
            .filter(|job| !has_partition(job))
            .copied()
            .collect();
        if !rest.is_empty() {
            execute(tx, sql, &[&rest]).await?;
        }
    }
    Ok(())
}

/// Returns the actor of the audit rows that retention writes.
fn retention(keep: &Keep) -> Actor {
    let days = keep.parked.as_secs() / 86_400;
    let reason = format!("nobody has dealt with it for {days} days (DISPATCH_KEEP_PARKED_DAYS)");
    Actor {
        who: "retention".to_owned(),
        role: Role::Worker,
        reason: Some(reason),
        request: None,
    }
}
