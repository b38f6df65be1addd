//! How much work there is: counts of open jobs with an upper limit, for metrics and for the number
//! of replicas. Every statement reads a bounded part of an index.

use std::collections::BTreeMap;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::sql::{query, query_one};
use crate::job::WaitReason;

/// Maximum number of organizations of a pipeline whose due jobs are counted.
const ORGANIZATIONS: i32 = 1000;

/// The open jobs of a pipeline. Each count is at most 10,001; the jobs that are running, waiting
/// and parked are those among the first 10,001 of all pipelines.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PipelineLoad {
    /// Ready jobs without a wake-up, due or not.
    pub not_woken: i64,
    /// Those of them that are due.
    pub due: i64,
    /// Those of them that are not due, but will be within 60 s.
    pub due_soon: i64,
    /// How long the oldest of them has been due, in seconds.
    pub oldest_due: f64,
    /// Ready jobs with a wake-up.
    pub woken: i64,
    pub running: i64,
    pub waiting: i64,
    /// Waiting jobs that only a vendor, or a person at a vendor, can continue: behind a hold (which
    /// is also what a rate limit and an open circuit lead to) or for a sign-in.
    pub waits_on_vendor: i64,
    pub parked: i64,
    /// Whether only the first 10,001 running jobs of all pipelines were counted; likewise for the
    /// waiting and the parked ones.
    pub is_part_of_running: bool,
    pub is_part_of_waiting: bool,
    pub is_part_of_parked: bool,
}

/// What is measured of the database as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DatabaseLoad {
    /// The age of the oldest hold in force, in seconds.
    pub oldest_hold: f64,
    /// Monthly partitions that do not exist yet.
    pub missing_partitions: i64,
    /// Size in bytes.
    pub bytes: i64,
}

/// Hops from organization to organization, and counts what is due in each of them.
pub(super) const DUE_NOW: &str = "
    WITH RECURSIVE organizations (organization, n) AS (
        (SELECT organization, 1 FROM jobs WHERE state = 'ready' AND woken_at IS NULL AND pipeline = $1
         ORDER BY pipeline, organization LIMIT 1)
        UNION ALL
        SELECT next.organization, o.n + 1 FROM organizations o CROSS JOIN LATERAL (
            SELECT organization FROM jobs WHERE state = 'ready' AND woken_at IS NULL AND pipeline = $1 AND organization > o.organization
            ORDER BY pipeline, organization LIMIT 1) next
        WHERE o.n < $2)
    SELECT count(*) FILTER (WHERE due_at <= now()) AS due, count(*) FILTER (WHERE due_at > now()) AS due_soon,
        coalesce(extract(epoch FROM now() - min(due_at) FILTER (WHERE due_at <= now())), 0)::float8 AS oldest_due
    FROM (
        SELECT j.due_at FROM organizations o CROSS JOIN LATERAL (
            SELECT due_at FROM jobs WHERE state = 'ready' AND woken_at IS NULL AND pipeline = $1 AND organization = o.organization
                AND due_at <= now() + interval '60 seconds' ORDER BY due_at LIMIT $3) j
        LIMIT $3) page";
pub(super) const NOT_WOKEN: &str = "
    SELECT count(*) AS n FROM (
        SELECT 1 FROM jobs WHERE state = 'ready' AND woken_at IS NULL AND pipeline = $1
        ORDER BY pipeline, organization, due_at, id LIMIT $2) page";
pub(super) const WOKEN: &str = "
    SELECT count(*) AS n FROM (
        SELECT 1 FROM jobs WHERE state = 'ready' AND woken_at IS NOT NULL AND pipeline = $1
        ORDER BY pipeline, woken_at LIMIT $2) page";
pub(super) const RUNNING: &str = "
    SELECT pipeline, NULL AS wait_reason, count(*) AS n FROM (
        SELECT pipeline FROM jobs WHERE state = 'running' ORDER BY owner LIMIT $1) page
    GROUP BY pipeline";
/// Reads the end of `jobs_halted`, because no state comes after `waiting` there; for `state = 'waiting'`, the planner may follow
/// another index through all unfinished jobs.
pub(super) const WAITING: &str = "
    SELECT pipeline, wait_reason, count(*) AS n FROM (
        SELECT pipeline, wait_reason FROM jobs WHERE state IN ('waiting', 'parked') AND (state, id) > ('waiting', '00000000-0000-0000-0000-000000000000')
        ORDER BY state, id LIMIT $1) page
    GROUP BY pipeline, wait_reason";
pub(super) const PARKED: &str = "
    SELECT pipeline, NULL AS wait_reason, count(*) AS n FROM (
        SELECT pipeline FROM jobs WHERE state = 'parked' LIMIT $1) page
    GROUP BY pipeline";
const DATABASE: &str = "
    SELECT pg_database_size(current_database()) AS bytes,
        (SELECT count(*) FROM missing_partitions(now(), 3)) AS missing_partitions,
        coalesce((SELECT extract(epoch FROM now() - min(created_at)) FROM (
            SELECT created_at, kind, released_at FROM controls WHERE expires_at > now() ORDER BY expires_at LIMIT $1) ends
            WHERE kind = 'hold' AND released_at IS NULL), 0)::float8 AS oldest_hold";

impl Store {
    /// Counts the open jobs of these pipelines.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn load<'a>(
        &self,
        pipelines: impl Iterator<Item = &'a str>,
    ) -> Result<BTreeMap<&'a str, PipelineLoad>, StoreError> {
        const ROWS: i64 = CappedCount::ROWS;
        let client = self.client().await?;
        let mut loads = BTreeMap::new();
        for pipeline in pipelines {
            let row = query_one(&client, DUE_NOW, &[&pipeline, &ORGANIZATIONS, &ROWS]).await?;
            let count = async |sql| -> Result<i64, StoreError> {
                let row = query_one(&client, sql, &[&pipeline, &ROWS]).await?;
                Ok(row.try_get("n")?)
            };
            let load = PipelineLoad {
                not_woken: count(NOT_WOKEN).await?,
                woken: count(WOKEN).await?,
                due: row.try_get("due")?,
                due_soon: row.try_get("due_soon")?,
                oldest_due: row.try_get("oldest_due")?,
                ..PipelineLoad::default()
            };
            loads.insert(pipeline, load);
        }
        for (sql, part) in [
            (RUNNING, Part::Running),
            (WAITING, Part::Waiting),
            (PARKED, Part::Parked),
        ] {
            let mut counted = 0;
            for row in query(&client, sql, &[&ROWS]).await? {
                counted += row.try_get::<_, i64>("n")?;
                let pipeline: &str = row.try_get("pipeline")?;
                // A job of a newer version may be in a pipeline that this one does not have.
                if let Some(load) = loads.get_mut(pipeline) {
                    load.add(part, row.try_get("wait_reason")?, row.try_get("n")?);
                }
            }
            if counted == ROWS {
                loads.values_mut().for_each(|load| load.is_part_of(part));
            }
        }
        Ok(loads)
    }

    /// Measures the database.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn database_load(&self) -> Result<DatabaseLoad, StoreError> {
        let row = query_one(&self.client().await?, DATABASE, &[&CappedCount::ROWS]).await?;
        Ok(DatabaseLoad {
            oldest_hold: row.try_get("oldest_hold")?,
            missing_partitions: row.try_get("missing_partitions")?,
            bytes: row.try_get("bytes")?,
        })
    }
}

#[derive(Clone, Copy)]
enum Part {
    Running,
    Waiting,
    Parked,
}

impl PipelineLoad {
    const fn is_part_of(&mut self, part: Part) {
        match part {
            Part::Running => self.is_part_of_running = true,
            Part::Waiting => self.is_part_of_waiting = true,
            Part::Parked => self.is_part_of_parked = true,
        }
    }

    fn add(&mut self, part: Part, reason: Option<&str>, n: i64) {
        match part {
            Part::Running => self.running += n,
            Part::Parked => self.parked += n,
            Part::Waiting => {
                self.waiting += n;
                if reason
                    .and_then(|word| word.parse().ok())
                    .is_some_and(is_vendor)
                {
                    self.waits_on_vendor += n;
                }
            }
        }
    }
}

/// Returns whether more replicas would not help: a vendor, or a person at a vendor, must act.
const fn is_vendor(reason: WaitReason) -> bool {
    match reason {
        WaitReason::Hold | WaitReason::Reauthentication | WaitReason::InstallationDisabled => true,
        WaitReason::Children | WaitReason::Configuration | WaitReason::Version => false,
    }
}
