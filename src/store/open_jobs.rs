//! Counts the jobs that are not done, by state, up to a limit.

use schemars::JsonSchema;
use serde::Serialize;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::job_row::state_of;
use super::sql::{query, query_one};
use super::ways::open_of_organization;
use crate::job::JobState;

/// Maximum number of an organization's open jobs that are counted.
const OF_ORGANIZATION: i64 = 40_000;

/// The number of jobs in each state that is not an end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OpenJobs {
    pub ready: CappedCount,
    pub running: CappedCount,
    pub waiting: CappedCount,
    pub parked: CappedCount,
    /// Whether every job was counted. An organization may have more jobs than are read at once;
    /// then each state has at least the stated number.
    pub is_complete: bool,
}

pub(super) const OPEN: &str = "
    SELECT (SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'ready' AND woken_at IS NULL
            ORDER BY pipeline, organization, due_at, id LIMIT $1) counted)
        + (SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'ready' AND woken_at IS NOT NULL
            ORDER BY pipeline, woken_at LIMIT $1) counted) AS ready,
        (SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'running' ORDER BY owner LIMIT $1) counted) AS running,
        (SELECT count(*) FROM (SELECT FROM jobs WHERE state IN ('waiting', 'parked') AND state = 'waiting'
            ORDER BY state, id LIMIT $1) counted) AS waiting,
        (SELECT count(*) FROM (SELECT FROM jobs WHERE state IN ('waiting', 'parked') AND state = 'parked'
            ORDER BY state, id LIMIT $1) counted) AS parked";

pub(super) const OPEN_OF_ORGANIZATION: &str = concat!(
    "SELECT state, count(*) AS jobs FROM (",
    open_of_organization!("state"),
    ") counted GROUP BY state"
);

impl Store {
    /// Counts the jobs that are not done: all of them, or those of an organization.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open_jobs(&self, organization: Option<&str>) -> Result<OpenJobs, StoreError> {
        let client = self.client().await?;
        let Some(organization) = organization else {
            let row = query_one(&client, OPEN, &[&CappedCount::ROWS]).await?;
            return Ok(OpenJobs {
                ready: CappedCount::of(row.try_get("ready")?),
                running: CappedCount::of(row.try_get("running")?),
                waiting: CappedCount::of(row.try_get("waiting")?),
                parked: CappedCount::of(row.try_get("parked")?),
                is_complete: true,
            });
        };
        let most = OF_ORGANIZATION + 1;
        let (mut open, mut all) = (OpenJobs::default(), 0);
        for row in query(&client, OPEN_OF_ORGANIZATION, &[&most, &organization]).await? {
            let jobs: i64 = row.try_get("jobs")?;
            all += jobs;
            let count = match state_of(&row)? {
                JobState::Ready => &mut open.ready,
                JobState::Running => &mut open.running,
                JobState::Waiting => &mut open.waiting,
                JobState::Parked => &mut open.parked,
                JobState::Succeeded | JobState::Cancelled => continue,
            };
            *count = CappedCount::of(jobs);
        }
        open.is_complete = all < most;
        Ok(open)
    }
}
