//! Takeover of the jobs of dead replicas: ends the replicas, frees their jobs, and counts which
//! jobs may have caused the deaths.

use uuid::Uuid;

use super::claim::{CRASHES, SUSPECT_AFTER};
use super::error::StoreError;
use super::handle::Store;
use super::job_row::state_of;
use super::parked::{ParkedJob, mark_parked};
use super::sql::query;
use crate::fault::codes;
use crate::job::{JobId, JobState, ReplicaId};

/// Jobs taken from dead owners.
#[derive(Debug, Default)]
pub struct Freed {
    /// Replicas that were ended.
    pub replicas: Vec<i64>,
    /// Jobs made due, with their pipelines.
    pub due: Vec<(JobId, String)>,
    /// Number of jobs parked because their owners keep dying.
    pub parked: usize,
}

/// Maximum number of jobs freed in one transaction.
const JOBS: i64 = 500;

/// The advisory lock of a live replica's session cannot be taken; if it can, the session is gone.
const BURY: &str = "
    UPDATE replicas SET ended_at = now()
    WHERE id IN (SELECT id FROM replicas WHERE ended_at IS NULL AND id <> $1
            AND (alive_until < now() OR pg_try_advisory_xact_lock(7264021, id::integer))
        FOR UPDATE SKIP LOCKED)
    RETURNING id";

/// A dead replica was running several jobs, and only one of them may be to blame. If a suspect was
/// among them (a replica runs one at a time, see [`super::Claim::is_suspect`]), it alone is
/// blamed. A replica that has ended well after all, since its process continued as another
/// incarnation, is no longer blamed: Postgres or the connection was unavailable. `due_at` is not
/// changed, so a freed job is woken before those that arrived after it. Walks from owner to owner
/// along `jobs_owned`.
pub(super) const FREE: &str = "
    WITH RECURSIVE owners AS (
        (SELECT owner FROM jobs WHERE state = 'running' ORDER BY owner LIMIT 1)
        UNION ALL
        SELECT next.owner FROM owners o CROSS JOIN LATERAL (
            SELECT owner FROM jobs WHERE state = 'running' AND owner > o.owner ORDER BY owner LIMIT 1) next
    ), gone AS MATERIALIZED (
        SELECT o.owner, (SELECT ended_well FROM replicas WHERE replicas.id = o.owner) IS TRUE AS ended_well, EXISTS (
            SELECT 1 FROM jobs suspect WHERE suspect.owner = o.owner AND suspect.state = 'running' AND suspect.crash_count >= $3
                AND suspect.committed_epoch <> suspect.epoch) AS had_suspect
        FROM owners o WHERE (SELECT ended_at IS NULL FROM replicas WHERE replicas.id = o.owner) IS NOT TRUE
    ), held AS (
        SELECT j.id, j.owner, j.committed, gone.ended_well, gone.had_suspect, j.crash_count, j.blamed,
            array(SELECT b FROM unnest(j.blamed) b WHERE (SELECT ended_well FROM replicas WHERE replicas.id = b) IS NOT TRUE) AS died
        FROM gone CROSS JOIN LATERAL (
            SELECT id, owner, committed_epoch = epoch AS committed, crash_count,
                CASE WHEN crash_count > 0 THEN coalesce(blamed, '{}') ELSE '{}' END AS blamed
            FROM jobs WHERE owner = gone.owner AND state = 'running' ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) j
        LIMIT $1
    ), judged AS (
        SELECT id, owner, died, committed, greatest(crash_count - cardinality(blamed) + cardinality(died), 0) AS crashes,
            NOT committed AND NOT ended_well AND NOT (had_suspect AND crash_count < $3) AS is_blamed
        FROM held
    ), dead AS (
        SELECT id, CASE WHEN committed THEN 0 ELSE crashes + is_blamed::int END AS crashes,
            CASE WHEN is_blamed THEN died || owner WHEN NOT committed THEN died END AS blamed
        FROM judged
    )
    UPDATE jobs SET owner = NULL, epoch = epoch + 1, crash_count = dead.crashes, blamed = dead.blamed,
        state = CASE WHEN dead.crashes >= $2 THEN 'parked' ELSE 'ready' END, woken_at = NULL,
        error_code = CASE WHEN dead.crashes >= $2 THEN $4 ELSE error_code END,
        error_message = CASE WHEN dead.crashes >= $2 THEN 'its owner died ' || dead.crashes || ' times without a commit in between'
            ELSE error_message END,
        error_hint = CASE WHEN dead.crashes >= $2 THEN 'Look at the workers'' logs for what kills them at this stage, then retry the job.'
            ELSE error_hint END,
        first_failed_at = CASE WHEN dead.crashes >= $2 THEN coalesce(first_failed_at, now()) ELSE first_failed_at END
    FROM dead WHERE jobs.id = dead.id
    RETURNING jobs.id, jobs.pipeline, jobs.stage, jobs.state, jobs.error_message";

impl Store {
    /// Ends dead replicas and frees their jobs, a bounded number at a time. The rows are left to
    /// the waker.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn free_dead(&self, me: ReplicaId) -> Result<Freed, StoreError> {
        let mut client = self.client().await?;
        let buried = query(&client, BURY, &[&me.0]).await?;
        let mut freed = Freed {
            replicas: buried
                .iter()
                .map(|row| row.try_get("id"))
                .collect::<Result<_, _>>()?,
            ..Freed::default()
        };
        let tx = client.transaction().await?;
        let mut parked = Vec::new();
        for row in query(
            &tx,
            FREE,
            &[&JOBS, &CRASHES, &SUSPECT_AFTER, &codes::CRASH_LOOP],
        )
        .await?
        {
            let id = JobId(row.try_get::<_, Uuid>("id")?);
            if state_of(&row)? == JobState::Parked {
                parked.push(ParkedJob::of(&row)?);
            } else {
                freed.due.push((id, row.try_get("pipeline")?));
            }
        }
        freed.parked = parked.len();
        mark_parked(&tx, codes::CRASH_LOOP, &parked).await?;
        tx.commit().await?;
        Ok(freed)
    }
}
