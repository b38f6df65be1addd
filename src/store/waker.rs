//! What the waker looks for: rows that are due and not woken, rows of dead owners, causes that are gone.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::Store;
use super::announcements::announce_parked;
use super::claim::{CRASHES, SUSPECT_AFTER};
use super::commit::{CommitError, Tables, Writer};
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

/// Makes due the oldest jobs that wait for a key.
pub(super) const RELEASE: &str = "SELECT release_waiting($1, $2, $3) AS released";

const CAUSES: &str = "
    SELECT wait_key, wait_observed FROM (
        SELECT DISTINCT wait_key, wait_observed FROM jobs
        WHERE state = 'waiting' AND wait_reason NOT IN ('children', 'configuration', 'version') AND wait_key NOT LIKE 'hold:%') causes
    ORDER BY random() LIMIT $1";

const OVERDUE: &str = "
    UPDATE jobs SET state = 'parked', epoch = epoch + 1, wait_reason = NULL, wait_key = NULL, wait_observed = NULL,
        error_code = 'deadline_exceeded', error_message = 'its deadline passed while it waited (' || wait_reason || ')',
        error_hint = 'Publish the job again with a later deadline, or retry it now by hand.', first_failed_at = now(),
        fingerprint = 'deadline_exceeded:' || pipeline || ':' || stage
    WHERE id IN (SELECT id FROM jobs WHERE state = 'waiting' AND deadline < now() AND wait_reason <> 'children'
        ORDER BY deadline LIMIT $1 FOR UPDATE SKIP LOCKED)
    RETURNING id";

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

    /// Makes due a bounded number of rows that wait for `key`. Returns how many; call again while it is not 0.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn release(&self, key: &str) -> Result<u64, StoreError> {
        released_by(&self.client().await?, key, BATCH, None).await
    }

    /// As [`Store::release`], until none is left that waits for `key`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was released before stays so.
    pub async fn release_all(&self, key: &str) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            match self.release(key).await? {
                0 => return Ok(all),
                some => all += some,
            }
        }
    }

    /// Parks waiting jobs whose deadline has passed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn park_overdue(&self) -> Result<usize, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let parked = ids(&query(&tx, OVERDUE, &[&BATCH]).await?)?;
        announce_parked(&tx, &parked).await?;
        tx.commit().await?;
        Ok(parked.len())
    }
}

impl<T: Tables> Writer<T> {
    /// Tests again every cause that a machine can test, but holds, whose jobs are let go step by step; releases the jobs whose
    /// cause is gone. Returns how many.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn retest_causes(&self) -> Result<u64, CommitError> {
        let mut client = self.store().client().await?;
        let mut released = 0;
        for row in query(&client, CAUSES, &[&BATCH]).await? {
            let key: String = row.try_get("wait_key")?;
            let observed: i64 = row.try_get::<_, Option<i64>>("wait_observed")?.unwrap_or_default();
            let tx = client.transaction().await?;
            let present = self.tables().cause_present(&tx, &key, observed).await.map_err(CommitError::Changes)?;
            if present == Some(false) {
                released += released_by(&tx, &key, BATCH, Some(observed)).await?;
            }
            tx.commit().await?;
        }
        Ok(released)
    }
}

/// Makes due at most `most` rows that wait for `key`, of those that saw it so where `seen` is given.
pub(super) async fn released_by<C: GenericClient>(on: &C, key: &str, most: i64, seen: Option<i64>) -> Result<u64, StoreError> {
    let row = query_one(on, RELEASE, &[&key, &most, &seen]).await?;
    Ok(u64::try_from(row.try_get::<_, i64>("released")?).unwrap_or_default())
}

fn ids(rows: &[tokio_postgres::Row]) -> Result<Vec<JobId>, StoreError> {
    rows.iter().map(|row| Ok(JobId(row.try_get::<_, Uuid>("id")?))).collect()
}
