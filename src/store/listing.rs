//! Lists of jobs for people, newest first.
//!
//! There is one statement for each access path: follow-ups by their parent; waiting, parked and
//! running jobs by their state. There is no index for anything else, since every job would pay for
//! it. Those lists, and filters in addition to an access path, read a window of the newest ids
//! below the cursor, and then the next window, until the page is full, there are no more jobs, or
//! [`LOOK`] jobs have been read. Each list is bounded by ids on both sides, so that no plan can
//! read more than the window.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::job_row::{JobRow, job_columns, job_row};
use super::sql::{query, query_opt};
use crate::job::{JobId, JobState};

/// Jobs in a window.
const WINDOW: i64 = 5_000;
/// Maximum number of jobs that are read for one page.
const LOOK: i64 = 100_000;

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<JobState>,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this organization.
    pub organization: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Follow-ups of this parent.
    pub parent: Option<JobId>,
    /// Older than this job: the cursor of the page.
    pub before: Option<JobId>,
    /// At most this many.
    pub limit: i64,
}

/// A page of jobs.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Newest first.
    pub jobs: Vec<JobRow>,
    /// Where reading stopped before the page was full, although there are older jobs.
    pub stopped: Option<Stopped>,
}

/// Where a list stopped reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Stopped {
    /// Number of jobs that were read.
    pub looked: i64,
    /// When the last of them was accepted.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub back_to: OffsetDateTime,
    /// Its id: the cursor for older jobs.
    pub before: JobId,
}

/// An access path: the statement for its jobs, newest first, and the statement for the end of a
/// window.
struct Way {
    list: &'static str,
    /// `None` if all its jobs fit into one window.
    edge: Option<&'static str>,
}

/// Selects jobs of an access path: ids below `$1` down to `$2`, filtered. The few rows are
/// filtered without an index.
macro_rules! list {
    ($range:literal, $order:literal) => {
        concat!(
            "SELECT ",
            job_columns!(),
            " FROM jobs j WHERE ",
            $range,
            " AND ($3::text IS NULL OR j.pipeline = $3) AND ($4::text IS NULL OR j.organization = $4)
                AND ($5::text IS NULL OR j.source = $5) AND ($6::text IS NULL OR j.state || '' = $6)
            ORDER BY ",
            $order,
            " LIMIT $7"
        )
    };
}

/// Selects the last of the `$2 + 1` newest ids below `$1`; no row if there are fewer.
macro_rules! edge {
    ($range:literal, $order:literal) => {
        concat!(
            "SELECT edge.id, (SELECT created_at FROM jobs WHERE jobs.id = edge.id) AS created_at
            FROM (SELECT j.id FROM jobs j WHERE ",
            $range,
            " ORDER BY ",
            $order,
            " OFFSET $2 LIMIT 1) edge"
        )
    };
}

// If an access path has an index, range and order use the columns of that index. With an equality
// instead, a planner that assumes an even distribution would rather walk over all ids until it has
// found enough.
pub(super) const NEWEST: &str = list!("j.id < $1 AND j.id >= $2", "j.id DESC");
pub(super) const NEWEST_EDGE: &str = edge!("j.id < $1", "j.id DESC");
pub(super) const WAITING: &str = list!(
    "j.state IN ('waiting', 'parked') AND (j.state, j.id) < ('waiting', $1) AND (j.state, j.id) >= ('waiting', $2)",
    "j.state DESC, j.id DESC"
);
pub(super) const WAITING_EDGE: &str = edge!(
    "j.state IN ('waiting', 'parked') AND (j.state, j.id) < ('waiting', $1) AND j.state >= 'waiting'",
    "j.state DESC, j.id DESC"
);
pub(super) const PARKED: &str = list!(
    "j.state IN ('waiting', 'parked') AND (j.state, j.id) < ('parked', $1) AND (j.state, j.id) >= ('parked', $2)",
    "j.state DESC, j.id DESC"
);
pub(super) const PARKED_EDGE: &str = edge!(
    "j.state IN ('waiting', 'parked') AND (j.state, j.id) < ('parked', $1) AND j.state >= 'parked'",
    "j.state DESC, j.id DESC"
);
pub(super) const FOLLOW_UPS: &str = list!(
    "j.parent_id IS NOT NULL AND (j.parent_id, j.id) < ($8, $1) AND (j.parent_id, j.id) >= ($8, $2)",
    "j.parent_id DESC, j.id DESC"
);
pub(super) const FOLLOW_UPS_EDGE: &str = edge!(
    "j.parent_id IS NOT NULL AND (j.parent_id, j.id) < ($3, $1) AND j.parent_id >= $3",
    "j.parent_id DESC, j.id DESC"
);
/// There are no more running jobs than permits; the order by owner is that of their index.
pub(super) const RUNNING: &str = list!(
    "j.id = ANY (ARRAY(SELECT id FROM jobs WHERE state = 'running' ORDER BY owner LIMIT 10000)) AND j.id < $1 AND j.id >= $2",
    "j.id DESC"
);

impl JobFilter {
    fn way(&self) -> Way {
        match (self.parent, self.state) {
            (Some(_), _) => Way {
                list: FOLLOW_UPS,
                edge: Some(FOLLOW_UPS_EDGE),
            },
            (None, Some(JobState::Waiting)) => Way {
                list: WAITING,
                edge: Some(WAITING_EDGE),
            },
            (None, Some(JobState::Parked)) => Way {
                list: PARKED,
                edge: Some(PARKED_EDGE),
            },
            (None, Some(JobState::Running)) => Way {
                list: RUNNING,
                edge: None,
            },
            (None, Some(JobState::Ready | JobState::Succeeded | JobState::Cancelled) | None) => {
                Way {
                    list: NEWEST,
                    edge: Some(NEWEST_EDGE),
                }
            }
        }
    }

    /// Returns whether the filter has conditions beyond its access path, so that a page may read
    /// many more rows than it returns.
    fn is_narrow(&self) -> bool {
        let answers_state = self.parent.is_none()
            && matches!(
                self.state,
                None | Some(JobState::Waiting | JobState::Parked | JobState::Running)
            );
        self.pipeline.is_some()
            || self.organization.is_some()
            || self.source.is_some()
            || (self.state.is_some() && !answers_state)
    }
}

impl Store {
    /// Returns jobs, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Listed, StoreError> {
        let client = self.client().await?;
        let (way, state, parent) = (
            filter.way(),
            filter.state.map(JobState::word),
            filter.parent.map(|id| id.0),
        );
        let mut before = filter.before.map_or(Uuid::max(), |id| id.0);
        let mut page = Listed {
            jobs: Vec::new(),
            stopped: None,
        };
        // Without a further filter, a page's rows are next to each other.
        let window = if filter.is_narrow() {
            WINDOW
        } else {
            filter.limit
        };
        for windows in 1..=LOOK / WINDOW {
            let end = match way.edge {
                Some(sql) => edge(&client, sql, (before, window), parent).await?,
                None => None,
            };
            let from = end.map_or(Uuid::nil(), |(id, _)| id);
            let missing = filter.limit - i64::try_from(page.jobs.len()).unwrap_or(i64::MAX);
            let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![
                &before,
                &from,
                &filter.pipeline,
                &filter.organization,
                &filter.source,
                &state,
                &missing,
            ];
            if parent.is_some() {
                parameters.push(&parent);
            }
            for row in query(&client, way.list, &parameters).await? {
                page.jobs.push(job_row(&row)?);
            }
            let is_full = i64::try_from(page.jobs.len()).is_ok_and(|jobs| jobs >= filter.limit);
            let Some((id, back_to)) = end.filter(|_| !is_full) else {
                return Ok(page.until_full());
            };
            page.stopped = Some(Stopped {
                looked: windows * window,
                back_to,
                before: JobId(id),
            });
            before = id;
        }
        Ok(page)
    }
}

impl Listed {
    /// Returns a page that ended because it is full or because there are no more jobs.
    fn until_full(self) -> Self {
        Self {
            stopped: None,
            ..self
        }
    }
}

/// Returns the last id of a window below `before`, and when that job was accepted. `None` if there
/// are no more jobs than the window holds.
async fn edge(
    client: &deadpool_postgres::Client,
    sql: &str,
    (before, window): (Uuid, i64),
    parent: Option<Uuid>,
) -> Result<Option<(Uuid, OffsetDateTime)>, StoreError> {
    let skipped = window - 1;
    let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&before, &skipped];
    if parent.is_some() {
        parameters.push(&parent);
    }
    let Some(row) = query_opt(client, sql, &parameters).await? else {
        return Ok(None);
    };
    Ok(Some((row.try_get("id")?, row.try_get("created_at")?)))
}
