//! Writes failure groups: the fingerprints of recent attempts and of parked jobs, beside the path of
//! jobs. An attempt of an older worker has no fingerprint; its group appears when a job is parked.

use time::{Duration, OffsetDateTime};

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query_one};
use super::turns::Turn;

/// Maximum number of groups that are kept.
const GROUPS: i64 = 10_000;
/// Groups without a note that make room for newer ones.
const ROOM: i64 = 200;
/// Maximum number of attempts that are read at once.
const ATTEMPTS: i64 = 100_000;
/// Maximum number of fingerprints of parked jobs that are read at once.
const PAGE: i32 = 200;
/// The length of time whose attempts are read at once.
const SPAN: Duration = Duration::seconds(60);
/// How long an attempt may be stored after its time, which is that of its transaction's start.
const IN_FLIGHT: Duration = Duration::seconds(30);
/// How far back the first reading goes. Groups whose last failure is older have parked jobs.
const FIRST: Duration = Duration::hours(1);

/// The position of a replica in the attempts and in the fingerprints of parked jobs.
#[derive(Debug, Default)]
pub struct SightingCursor {
    until: Option<OffsetDateTime>,
    fingerprint: String,
}

const CLOCK: &str = "SELECT now() AS now";

/// Stores at most `$4` groups that are not known yet.
pub(super) const SEE_ATTEMPTS: &str = "
    WITH seen AS MATERIALIZED (
        SELECT fingerprint, job_id, stage, error_code, message, replica, at FROM attempts
        WHERE at >= $1 AND at < $2 AND fingerprint IS NOT NULL LIMIT $3
    ), last AS MATERIALIZED (
        SELECT fingerprint, max(at) AS at FROM seen GROUP BY fingerprint
    ), known AS (
        UPDATE failure_groups known SET last_seen_at = last.at FROM last
        WHERE known.fingerprint = last.fingerprint AND known.last_seen_at < last.at
    ), first AS MATERIALIZED (
        SELECT DISTINCT ON (fingerprint) fingerprint, job_id, stage, error_code, message, replica, at FROM seen
        ORDER BY fingerprint, at
    )
    INSERT INTO failure_groups (fingerprint, pipeline, stage, error_code, sample, first_seen_at, first_version, last_seen_at)
    SELECT first.fingerprint, job.pipeline, first.stage, first.error_code, left(first.message, 2048), first.at,
        (SELECT version FROM replicas WHERE replicas.id = first.replica), last.at
    FROM first JOIN last ON last.fingerprint = first.fingerprint
        CROSS JOIN LATERAL (SELECT pipeline FROM jobs WHERE jobs.id = first.job_id LIMIT 1) job
    WHERE NOT EXISTS (SELECT FROM failure_groups known WHERE known.fingerprint = first.fingerprint)
    LIMIT $4
    ON CONFLICT (fingerprint) DO NOTHING";

/// Walks from fingerprint to fingerprint along `jobs_parked_by_group`, from the first one after
/// `$1` on; takes the newest job of each.
pub(super) const SEE_PARKED: &str = "
    WITH RECURSIVE groups AS (
        (SELECT fingerprint, 1 AS number FROM jobs WHERE state = 'parked' AND fingerprint > $1 ORDER BY fingerprint LIMIT 1)
        UNION ALL
        SELECT next.fingerprint, groups.number + 1 FROM groups CROSS JOIN LATERAL (
            SELECT fingerprint FROM jobs WHERE state = 'parked' AND fingerprint > groups.fingerprint
            ORDER BY fingerprint LIMIT 1) next
        WHERE groups.number < $2
    ), stored AS (
        INSERT INTO failure_groups AS known (fingerprint, pipeline, stage, error_code, sample, first_seen_at, last_seen_at)
        SELECT groups.fingerprint, newest.pipeline, newest.stage, newest.error_code, left(newest.error_message, 2048),
            newest.first_at, newest.last_at
        FROM groups CROSS JOIN LATERAL (
            SELECT pipeline, stage, error_code, coalesce(error_message, '') AS error_message,
                coalesce(first_failed_at, last_progress_at) AS first_at,
                greatest(coalesce(first_failed_at, last_progress_at), last_progress_at) AS last_at
            FROM jobs WHERE state = 'parked' AND (fingerprint, id) <= (groups.fingerprint, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                AND (fingerprint, id) >= (groups.fingerprint, '00000000-0000-0000-0000-000000000000')
            ORDER BY fingerprint DESC, id DESC LIMIT 1) newest
        WHERE newest.error_code IS NOT NULL AND length(groups.fingerprint) <= 200
        ON CONFLICT (fingerprint) DO UPDATE SET last_seen_at = excluded.last_seen_at
            WHERE known.last_seen_at < excluded.last_seen_at
    )
    SELECT count(*) AS groups, coalesce(max(fingerprint), '') AS last FROM groups";

pub(super) const COUNT: &str =
    "SELECT count(*) AS groups FROM (SELECT FROM failure_groups LIMIT $1) counted";

/// Deletes the groups that were last seen longest ago, unless people keep something with them.
pub(super) const MAKE_ROOM: &str = "
    DELETE FROM failure_groups WHERE fingerprint IN (
        SELECT fingerprint FROM failure_groups WHERE note IS NULL AND owner IS NULL AND muted_until IS NULL
        ORDER BY last_seen_at, fingerprint LIMIT $1)";

impl Store {
    /// Writes the failure groups of the next attempts and of the next parked jobs, unless another
    /// replica does. Returns whether there are more attempts.
    ///
    /// # Errors
    /// [`StoreError`]; the next call repeats what is not stored.
    pub async fn see_failures(
        &self,
        now: OffsetDateTime,
        cursor: &mut SightingCursor,
    ) -> Result<bool, StoreError> {
        let seen = self.in_turn(Turn::FailureGroups, now, self.see_next(cursor));
        Ok(seen.await?.unwrap_or(false))
    }

    async fn see_next(&self, cursor: &mut SightingCursor) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let count = query_one(&client, COUNT, &[&(GROUPS + 1)]).await?;
        let room = GROUPS - count.try_get::<_, i64>("groups")?;
        if room < i64::from(PAGE) {
            execute(&client, MAKE_ROOM, &[&ROOM]).await?;
        }
        let now: OffsetDateTime = query_one(&client, CLOCK, &[]).await?.try_get("now")?;
        let oldest = now - FIRST;
        let begin = cursor.until.map_or(oldest, |until| until.max(oldest));
        let until = now.min(begin + SPAN);
        let new = room.clamp(0, i64::from(PAGE));
        let since = begin - IN_FLIGHT;
        execute(&client, SEE_ATTEMPTS, &[&since, &until, &ATTEMPTS, &new]).await?;
        cursor.until = Some(until);
        // After the attempts, which name the version.
        if room > 0 && until == now {
            let page = query_one(&client, SEE_PARKED, &[&cursor.fingerprint, &PAGE]).await?;
            let is_last = page.try_get::<_, i64>("groups")? < i64::from(PAGE);
            cursor.fingerprint = if is_last {
                String::new()
            } else {
                page.try_get("last")?
            };
        }
        Ok(until < now)
    }
}
