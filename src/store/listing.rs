//! Lists of jobs for people, newest first.
//!
//! An access path (`ways`) returns a window of ids; one statement reads their rows and tests every
//! condition. There is no index for most conditions, since every job would pay for it. Such a list
//! reads the next window, until the page is full, there are no more jobs, or [`LOOK`] jobs have
//! been read.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::job_filter::{CodeFilter, JobFilter};
use super::job_row::{JobRow, job_columns, job_row};
use super::sql::query;
use super::ways::Way;
use crate::job::JobId;

/// Jobs in a window.
const WINDOW: i64 = 5_000;
/// Maximum number of jobs that are read for one page.
const LOOK: i64 = 10_000;

/// A page of jobs.
#[derive(Debug, Clone, Serialize, JsonSchema)]
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
    /// When the last of them was accepted; a follow-up counts as accepted with its first parent.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub back_to: OffsetDateTime,
    /// Its id: the cursor for older jobs.
    pub before: JobId,
}

/// Selects from the jobs with the ids `$1`. The array is a subquery, since a planner that knows its
/// length might prefer to read the whole table.
pub(super) const AMONG: &str = concat!(
    "SELECT ",
    job_columns!(),
    r#" FROM jobs j WHERE j.id = ANY (ARRAY(SELECT unnest($1::uuid[])))
                AND ($2::text[] IS NULL OR j.pipeline = ANY ($2)) AND ($3::text[] IS NULL OR j.organization = ANY ($3))
                AND ($4::text[] IS NULL OR j.source = ANY ($4)) AND ($5::text[] IS NULL OR j.state || '' = ANY ($5))
                AND ($6::text[] IS NULL OR j.stage = ANY ($6))
                AND ($7::text[] IS NULL OR (SELECT bool_or(j.error_code COLLATE "C" BETWEEN code.first AND code.last)
                    FROM unnest($7, $8::text[]) AS code (first, last)))
                AND ($9::text IS NULL OR j.fingerprint || '' = $9) AND ($10::bigint IS NULL OR j.owner + 0 = $10)
                AND ($11::text IS NULL OR j.wait_key || '' = $11) AND ($12::text IS NULL OR j.dedupe_key = $12)
                AND ($13::uuid IS NULL OR j.parent_id = $13)
    ORDER BY j.id DESC LIMIT $14"#
);

impl Store {
    /// Returns jobs, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Listed, StoreError> {
        let client = self.client().await?;
        let mut reading = Reading::of(&client, filter).await?;
        // Without a further condition, a page's rows are next to each other.
        let window = if reading.is_narrowed {
            WINDOW
        } else {
            filter.limit
        };
        let mut jobs = Vec::new();
        loop {
            let ids = reading.window(window).await?;
            let missing = filter.limit - i64::try_from(jobs.len()).unwrap_or(i64::MAX);
            for row in among(&client, (&ids, filter), missing).await? {
                jobs.push(job_row(&row)?);
            }
            let is_full = i64::try_from(jobs.len()).is_ok_and(|jobs| jobs >= filter.limit);
            if is_full || reading.is_over {
                return Ok(Listed {
                    jobs,
                    stopped: None,
                });
            }
            if reading.looked >= LOOK {
                let stopped = reading.stopped();
                return Ok(Listed { jobs, stopped });
            }
        }
    }
}

/// A walk along an access path, window by window.
struct Reading<'a> {
    client: &'a deadpool_postgres::Client,
    way: Way<'a>,
    is_narrowed: bool,
    from: Uuid,
    before: Uuid,
    looked: i64,
    /// Whether there are no more jobs.
    is_over: bool,
}

impl<'a> Reading<'a> {
    async fn of(
        client: &'a deadpool_postgres::Client,
        filter: &'a JobFilter,
    ) -> Result<Self, StoreError> {
        let way = Way::of(client, filter).await?;
        Ok(Self {
            client,
            is_narrowed: way.is_narrowed_by(filter),
            way,
            from: filter.since.map_or(Uuid::nil(), |at| JobId::first_of(at).0),
            before: filter.before.map_or(Uuid::max(), |id| id.0),
            looked: 0,
            is_over: false,
        })
    }

    /// Returns the next window of ids.
    async fn window(&mut self, most: i64) -> Result<Vec<Uuid>, StoreError> {
        let bounds = (self.from, self.before);
        let ids = self.way.ids(self.client, bounds, most).await?;
        let read = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        self.looked += read;
        self.is_over = read < most;
        self.before = ids.last().copied().unwrap_or(self.before);
        Ok(ids)
    }

    fn stopped(&self) -> Option<Stopped> {
        let before = JobId(self.before);
        Some(Stopped {
            looked: self.looked,
            back_to: before.accepted_at(),
            before,
        })
    }
}

/// Returns the jobs with these ids that the filter selects.
async fn among(
    client: &deadpool_postgres::Client,
    (ids, filter): (&Vec<Uuid>, &JobFilter),
    limit: i64,
) -> Result<Vec<Row>, StoreError> {
    let (first_codes, last_codes): (Vec<String>, Vec<String>) =
        filter.error_codes.iter().map(CodeFilter::range).unzip();
    let states: Vec<&str> = filter.states.iter().map(|state| state.word()).collect();
    let parent = filter.parent.map(|id| id.0);
    let lists = [
        &filter.pipelines,
        &filter.organizations,
        &filter.sources,
        &filter.stages,
        &first_codes,
        &last_codes,
    ];
    let [
        pipelines,
        organizations,
        sources,
        stages,
        first_codes,
        last_codes,
    ] = lists.map(|values| any_of(values));
    let states = any_of(&states);
    let parameters: [&(dyn ToSql + Sync); 14] = [
        ids,
        &pipelines,
        &organizations,
        &sources,
        &states,
        &stages,
        &first_codes,
        &last_codes,
        &filter.fingerprint,
        &filter.replica,
        &filter.cause,
        &filter.dedupe_key,
        &parent,
        &limit,
    ];
    query(client, AMONG, &parameters).await
}

/// Returns the values of a condition; `None` if there is no condition.
fn any_of<T>(values: &[T]) -> Option<&[T]> {
    (!values.is_empty()).then_some(values)
}
