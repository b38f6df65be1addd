//! What the waker looks for: rows that are due and not woken, rows of dead owners.

use std::time::Duration;

use uuid::Uuid;

use super::Store;
use super::announcements::announce_parked;
use super::claim::{CRASHES, SUSPECT_AFTER};
use super::error::StoreError;
use super::sql::{execute, query, query_one};
use crate::job::{JobId, JobState, ReplicaId};

/// What waits in Postgres for its turn or its time, and for a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs that are ready and not woken.
    pub jobs: u32,
    /// Dead letters that nobody has dealt with.
    pub dead_letters: u32,
}

/// Jobs taken from dead owners.
#[derive(Debug, Default)]
pub struct Freed {
    /// Replicas found dead.
    pub replicas: Vec<i64>,
    /// Jobs made due, with their pipelines; the caller publishes their wake-ups.
    pub wake: Vec<(JobId, String)>,
    /// Jobs parked because their owners keep dying on them.
    pub parked: usize,
}

/// At most this many rows are moved in one transaction.
pub(super) const BATCH: i64 = 500;

/// Organizations in turn: the first due row of each, then the second of each. The recursion hops from organization to
/// organization along the index, so a long backlog of one costs the others nothing. The rows are looked at again by their keys: in
/// words that no partial index is of, since a planner that has seen the table empty would read all of that index for each.
const DUE: &str = "
    WITH RECURSIVE organizations AS (
        (SELECT organization FROM jobs WHERE pipeline = $1 AND state = 'ready' AND woken_at IS NULL ORDER BY organization LIMIT 1)
        UNION ALL
        SELECT (SELECT j.organization FROM jobs j WHERE j.pipeline = $1 AND j.state = 'ready' AND j.woken_at IS NULL
            AND j.organization > o.organization ORDER BY j.organization LIMIT 1)
        FROM organizations o WHERE o.organization IS NOT NULL
    ), turns AS (
        SELECT due.id, due.turn FROM organizations o CROSS JOIN LATERAL (
            SELECT id, row_number() OVER (ORDER BY due_at, id) AS turn FROM jobs
            WHERE pipeline = $1 AND organization = o.organization AND state = 'ready' AND woken_at IS NULL AND due_at <= now()
            ORDER BY due_at, id LIMIT $2) due
        ORDER BY due.turn LIMIT $2
    ), locked AS (
        SELECT due.id FROM turns CROSS JOIN LATERAL (
            SELECT id FROM jobs WHERE jobs.id = turns.id AND state || '' = 'ready' AND woken_at IS NOT DISTINCT FROM NULL
            FOR UPDATE SKIP LOCKED) due
    )
    UPDATE jobs SET woken_at = now() FROM locked WHERE jobs.id = locked.id RETURNING jobs.id";

const STALE: &str = "
    WITH locked AS (
        SELECT id FROM jobs WHERE pipeline = $1 AND state = 'ready' AND woken_at < now() - $3 * interval '1 second'
        ORDER BY woken_at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET woken_at = now() FROM locked WHERE jobs.id = locked.id RETURNING jobs.id";

/// The lock of a live replica's session cannot be taken; one that can belongs to a dead session.
const BURY: &str = "
    UPDATE replicas SET ended_at = now()
    WHERE id IN (SELECT id FROM replicas WHERE ended_at IS NULL AND id <> $1
            AND (alive_until < now() OR pg_try_advisory_xact_lock(7264021, id::integer))
        FOR UPDATE SKIP LOCKED)
    RETURNING id";

/// A replica takes everything that it has in hand with it, and only one of these may be to blame. Where a suspect was among them
/// (there is one at a time, see [`super::Claim::is_suspect`]), it is blamed alone. When the job was due is left: whoever wakes it
/// again wakes it before those that came after it.
const FREE: &str = "
    WITH dead AS (
        SELECT j.id, CASE
            WHEN j.committed_epoch = j.epoch THEN 0
            WHEN r.ended_well THEN j.crash_count
            WHEN j.crash_count < $3 AND EXISTS (
                SELECT 1 FROM jobs suspect WHERE suspect.owner = j.owner AND suspect.state = 'running'
                    AND suspect.crash_count >= $3 AND suspect.committed_epoch <> suspect.epoch) THEN j.crash_count
            ELSE j.crash_count + 1 END AS crashes
        FROM jobs j LEFT JOIN replicas r ON r.id = j.owner
        WHERE j.state = 'running' AND (r.id IS NULL OR r.ended_at IS NOT NULL)
        ORDER BY j.id LIMIT $1 FOR UPDATE OF j SKIP LOCKED
    )
    UPDATE jobs SET owner = NULL, epoch = epoch + 1, crash_count = dead.crashes,
        state = CASE WHEN dead.crashes >= $2 THEN 'parked' ELSE 'ready' END,
        woken_at = CASE WHEN dead.crashes >= $2 THEN NULL ELSE now() END,
        error_code = CASE WHEN dead.crashes >= $2 THEN 'crash_loop' ELSE error_code END,
        error_message = CASE WHEN dead.crashes >= $2 THEN 'its owner died ' || dead.crashes || ' times without a commit in between'
            ELSE error_message END,
        error_hint = CASE WHEN dead.crashes >= $2 THEN 'Look at the workers'' logs for what kills them at this stage, then retry the job.'
            ELSE error_hint END,
        fingerprint = CASE WHEN dead.crashes >= $2 THEN 'crash_loop:' || pipeline || ':' || stage ELSE fingerprint END
    FROM dead WHERE jobs.id = dead.id
    RETURNING jobs.id, jobs.pipeline, jobs.state";

/// Rows that a dead replica may have stamped without publishing their wake-ups; a wake-up too many is harmless.
const UNSTAMP: &str = "
    UPDATE jobs SET woken_at = NULL
    WHERE id IN (SELECT id FROM jobs WHERE state = 'ready' AND woken_at > now() - interval '15 seconds'
        ORDER BY id LIMIT 10000 FOR UPDATE SKIP LOCKED)";

const BACKLOG: &str = "
    SELECT (SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'ready' AND woken_at IS NULL LIMIT $1) AS counted) AS jobs,
        (SELECT count(*) FROM (SELECT FROM dead_letters WHERE resolved_at IS NULL LIMIT $1) AS counted) AS dead_letters";

const PRUNE_KEYS: &str = "
    DELETE FROM job_keys WHERE (source, dedupe_key) IN
        (SELECT source, dedupe_key FROM job_keys WHERE created_at < now() - interval '30 days' ORDER BY created_at LIMIT $1)";

const PRUNE_JOBS: &str = "
    WITH old AS (
        SELECT id FROM jobs
        WHERE id < first_job_id_of(now() - interval '30 days') AND state IN ('succeeded', 'cancelled')
            AND finished_at < now() - interval '30 days'
        ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
    ), no_checkpoints AS (DELETE FROM checkpoints WHERE job_id IN (SELECT id FROM old)),
    no_attempts AS (DELETE FROM attempts WHERE job_id IN (SELECT id FROM old)),
    no_effects AS (DELETE FROM effects WHERE job_id IN (SELECT id FROM old))
    DELETE FROM jobs WHERE id IN (SELECT id FROM old)";

impl Store {
    /// What waits, each kind counted up to `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backlog(&self, limit: u32) -> Result<Backlog, StoreError> {
        let row = query_one(&self.client().await?, BACKLOG, &[&i64::from(limit)]).await?;
        let count = |column| Ok::<_, StoreError>(u32::try_from(row.try_get::<_, i64>(column)?).unwrap_or(u32::MAX));
        Ok(Backlog { jobs: count("jobs")?, dead_letters: count("dead_letters")? })
    }

    /// Forgets jobs that ended 30 days ago, a bounded number at a time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_jobs(&self) -> Result<u64, StoreError> {
        execute(&self.client().await?, PRUNE_JOBS, &[&BATCH]).await
    }

    /// Stamps up to `limit` rows of a pipeline that are due and not woken, organizations in turn; the caller publishes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_due(&self, pipeline: &str, limit: i64) -> Result<Vec<JobId>, StoreError> {
        ids(&query(&self.client().await?, DUE, &[&pipeline, &limit]).await?)
    }

    /// Stamps again rows that were woken longer than `age` ago and not claimed since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_stale(&self, pipeline: &str, limit: i64, age: Duration) -> Result<Vec<JobId>, StoreError> {
        ids(&query(&self.client().await?, STALE, &[&pipeline, &limit, &age.as_secs_f64()]).await?)
    }

    /// Buries dead replicas and frees what they owned, a bounded number at a time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn free_dead(&self, me: ReplicaId) -> Result<Freed, StoreError> {
        let mut client = self.client().await?;
        let buried = query(&client, BURY, &[&me.0]).await?;
        let mut freed =
            Freed { replicas: buried.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?, ..Freed::default() };
        if !buried.is_empty() {
            execute(&client, UNSTAMP, &[]).await?;
        }
        let tx = client.transaction().await?;
        let mut parked = Vec::new();
        for row in query(&tx, FREE, &[&BATCH, &CRASHES, &SUSPECT_AFTER]).await? {
            let id = JobId(row.try_get("id")?);
            if super::inspect::state_of(&row)? == JobState::Parked {
                parked.push(id);
            } else {
                freed.wake.push((id, row.try_get("pipeline")?));
            }
        }
        freed.parked = parked.len();
        announce_parked(&tx, &parked).await?;
        tx.commit().await?;
        Ok(freed)
    }

    /// Forgets keys older than 30 days, a bounded number at a time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune_keys(&self) -> Result<u64, StoreError> {
        execute(&self.client().await?, PRUNE_KEYS, &[&BATCH]).await
    }
}

pub(super) fn ids(rows: &[tokio_postgres::Row]) -> Result<Vec<JobId>, StoreError> {
    rows.iter().map(|row| Ok(JobId(row.try_get::<_, Uuid>("id")?))).collect()
}
