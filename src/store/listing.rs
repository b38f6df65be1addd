//! Lists of jobs for people, newest first.
//!
//! There is one statement for each way in: follow-ups by their parent, jobs that stand still or run by their state. For anything
//! else no index is kept, since every job would pay for it: those lists, and filters beside a way in, look at a window of the
//! newest ids below the cursor, and at the next window, until the page is full, there are no more, or [`LOOK`] have been looked at.
//! Each list is bounded by ids on both sides, so that no plan of Postgres' can read more than the window.

use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Store;
use super::error::StoreError;
use super::inspect::{JobRow, job_columns, job_row};
use super::sql::{query, query_opt};
use crate::job::{JobId, JobState};

/// Jobs in a window.
const WINDOW: i64 = 5_000;
/// Jobs that are looked at for one page, at most.
const LOOK: i64 = 100_000;

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<JobState>,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this tenant.
    pub organization: Option<String>,
    /// Of this producer.
    pub source: Option<String>,
    /// Of this parent.
    pub parent: Option<JobId>,
    /// Made before this one: the page's cursor.
    pub before: Option<JobId>,
    /// At most this many.
    pub limit: i64,
}

/// A page of jobs.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Newest first.
    pub jobs: Vec<JobRow>,
    /// Where looking has ended before the page was full, though there are older jobs.
    pub stopped: Option<Stopped>,
}

/// Where a list has stopped looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// How many jobs were looked at.
    pub looked: i64,
    /// When the last of them was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub back_to: OffsetDateTime,
    /// Its id: the cursor for what is older.
    pub before: JobId,
}

/// A way in: which jobs it has, newest first, and where a window of them ends.
struct Way {
    list: &'static str,
    /// `None`: all of them are a few.
    edge: Option<&'static str>,
}

/// The list of a way in: ids below `$1` down to `$2`, filtered. Within these few it is filtered without an index.
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

/// The last of the `$2 + 1` newest ids below `$1`; no row: there are fewer.
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

// Where a way in has an index of its own, the range and the order are in the columns of that index. With an equality instead, a
// planner that takes the kind for evenly spread would rather walk over all ids until it has found enough.
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
pub(super) const FOLLOW_UPS_EDGE: &str =
    edge!("j.parent_id IS NOT NULL AND (j.parent_id, j.id) < ($3, $1) AND j.parent_id >= $3", "j.parent_id DESC, j.id DESC");
/// No more run than there are seats; the order by owner is that of their index.
pub(super) const RUNNING: &str = list!(
    "j.id = ANY (ARRAY(SELECT id FROM jobs WHERE state = 'running' ORDER BY owner LIMIT 10000)) AND j.id < $1 AND j.id >= $2",
    "j.id DESC"
);

impl JobFilter {
    fn way(&self) -> Way {
        match (self.parent, self.state) {
            (Some(_), _) => Way { list: FOLLOW_UPS, edge: Some(FOLLOW_UPS_EDGE) },
            (None, Some(JobState::Waiting)) => Way { list: WAITING, edge: Some(WAITING_EDGE) },
            (None, Some(JobState::Parked)) => Way { list: PARKED, edge: Some(PARKED_EDGE) },
            (None, Some(JobState::Running)) => Way { list: RUNNING, edge: None },
            (None, Some(JobState::Ready | JobState::Succeeded | JobState::Cancelled) | None) => {
                Way { list: NEWEST, edge: Some(NEWEST_EDGE) }
            }
        }
    }

    /// Whether it asks for more than its way in answers, so that a page may need many more rows than it has.
    fn is_narrow(&self) -> bool {
        let answers_state =
            self.parent.is_none() && matches!(self.state, None | Some(JobState::Waiting | JobState::Parked | JobState::Running));
        self.pipeline.is_some()
            || self.organization.is_some()
            || self.source.is_some()
            || (self.state.is_some() && !answers_state)
    }
}

impl Store {
    /// Jobs, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Listed, StoreError> {
        let client = self.client().await?;
        let (way, state, parent) = (filter.way(), filter.state.map(JobState::word), filter.parent.map(|id| id.0));
        let mut before = filter.before.map_or(Uuid::max(), |id| id.0);
        let mut page = Listed { jobs: Vec::new(), stopped: None };
        // Without a further filter, a page's rows are next to each other.
        let window = if filter.is_narrow() { WINDOW } else { filter.limit };
        for windows in 1..=LOOK / WINDOW {
            let end = match way.edge {
                Some(sql) => edge(&client, sql, (before, window), parent).await?,
                None => None,
            };
            let from = end.map_or(Uuid::nil(), |(id, _)| id);
            let missing = filter.limit - i64::try_from(page.jobs.len()).unwrap_or(i64::MAX);
            let mut parameters: Vec<&(dyn ToSql + Sync)> =
                vec![&before, &from, &filter.pipeline, &filter.organization, &filter.source, &state, &missing];
            if parent.is_some() {
                parameters.push(&parent);
            }
            for row in query(&client, way.list, &parameters).await? {
                page.jobs.push(job_row(&row)?);
            }
            let is_full = i64::try_from(page.jobs.len()).is_ok_and(|jobs| jobs >= filter.limit);
            let Some((id, back_to)) = end.filter(|_| !is_full) else { return Ok(page.until_full()) };
            page.stopped = Some(Stopped { looked: windows * window, back_to, before: JobId(id) });
            before = id;
        }
        Ok(page)
    }
}

impl Listed {
    /// It has ended because it is full, or because there are no more.
    fn until_full(self) -> Self {
        Self { stopped: None, ..self }
    }
}

/// The last id of a window of so many jobs below `before`, and when that job was accepted. `None`: it has no more jobs than a window.
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
    let Some(row) = query_opt(client, sql, &parameters).await? else { return Ok(None) };
    Ok(Some((row.try_get("id")?, row.try_get("created_at")?)))
}
