//! The follow-ups of a job: how many are in which state, and those that are worst.

use deadpool_postgres::Client;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::count::CappedCount;
use super::super::error::StoreError;
use super::super::job_row::{JobRow, job_columns, job_row, state_of};
use super::super::sql::query;
use crate::job::{JobId, JobState};

/// The number of follow-ups that are shown.
const WORST_ROWS: i64 = 20;

/// How many follow-ups are in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FollowUpCount {
    /// The state.
    pub state: JobState,
    /// Their number, up to a limit.
    pub jobs: CappedCount,
}

/// The follow-ups of a job, of all generations.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FollowUps {
    /// Counts by state.
    pub states: Vec<FollowUpCount>,
    /// At most 20 that are not done: those that are parked first, then those that wait.
    pub worst: Vec<JobRow>,
}

/// The range has one value: an equality would let the planner walk the jobs by id instead.
pub(crate) const COUNTS: &str = "
    SELECT state, count(*) AS jobs FROM (SELECT state FROM jobs WHERE parent_id >= $1 AND parent_id <= $1 ORDER BY parent_id DESC, id DESC LIMIT $2) newest
    GROUP BY state ORDER BY state";

/// Of the newest `$2` follow-ups.
pub(crate) const WORST: &str = concat!(
    "SELECT ",
    job_columns!(),
    " FROM (SELECT id, place FROM (
            SELECT id, array_position(ARRAY['parked', 'waiting', 'running', 'ready'], state) AS place
            FROM jobs WHERE parent_id >= $1 AND parent_id <= $1 ORDER BY parent_id DESC, id DESC LIMIT $2) newest
        WHERE place IS NOT NULL ORDER BY place, id LIMIT $3) worst
    JOIN jobs j ON j.id = worst.id ORDER BY worst.place, worst.id"
);

/// Reads the follow-ups.
pub(crate) async fn follow_ups(client: &Client, parent: JobId) -> Result<FollowUps, StoreError> {
    let counted = query(client, COUNTS, &[&parent.0, &CappedCount::ROWS]).await?;
    let states = counted.iter().map(|row| {
        Ok(FollowUpCount {
            state: state_of(row)?,
            jobs: CappedCount::of(row.try_get("jobs")?),
        })
    });
    let states = states.collect::<Result<_, StoreError>>()?;
    let worst = query(client, WORST, &[&parent.0, &CappedCount::ROWS, &WORST_ROWS]).await?;
    Ok(FollowUps {
        states,
        worst: worst.iter().map(job_row).collect::<Result<_, _>>()?,
    })
}
