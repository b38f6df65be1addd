//! Counts the backlog in Postgres page by page, so that no statement reads all of a long backlog.

use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::sql::query_opt;

/// The rows that wait for their turn, their time or a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Jobs that are ready and have no wake-up.
    pub jobs: u32,
    /// Open dead letters.
    pub dead_letters: u32,
}

/// A count in progress.
#[derive(Debug, Default)]
pub struct Count {
    so_far: Backlog,
    jobs_after: Option<Place>,
    letters_after: i64,
    jobs_done: bool,
    letters_done: bool,
}

/// The place in the index of due rows where a page ended.
#[derive(Debug)]
struct Place {
    pipeline: String,
    organization: String,
    due_at: OffsetDateTime,
    id: Uuid,
}

/// Maximum number of rows that one statement counts.
const PAGE: i64 = 2000;

/// Reads along `jobs_not_woken`; returns the last row of the page and the number of its rows.
pub(super) const JOBS_FROM_START: &str = "
    SELECT pipeline, organization, due_at, id, n FROM (
        SELECT pipeline, organization, due_at, id, row_number() OVER (ORDER BY pipeline, organization, due_at, id) AS n FROM jobs
        WHERE state = 'ready' AND woken_at IS NULL
        ORDER BY pipeline, organization, due_at, id LIMIT $1) page
    ORDER BY n DESC LIMIT 1";

pub(super) const JOBS_AFTER: &str = "
    SELECT pipeline, organization, due_at, id, n FROM (
        SELECT pipeline, organization, due_at, id, row_number() OVER (ORDER BY pipeline, organization, due_at, id) AS n FROM jobs
        WHERE state = 'ready' AND woken_at IS NULL AND (pipeline, organization, due_at, id) > ($2, $3, $4, $5)
        ORDER BY pipeline, organization, due_at, id LIMIT $1) page
    ORDER BY n DESC LIMIT 1";

pub(super) const LETTERS_AFTER: &str = "
    SELECT id, n FROM (
        SELECT id, row_number() OVER (ORDER BY id) AS n FROM dead_letters WHERE resolved_at IS NULL AND id > $2
        ORDER BY id LIMIT $1) page
    ORDER BY n DESC LIMIT 1";

impl Store {
    /// Continues a count by one page of each kind. Returns the backlog once all rows are counted,
    /// or the count of each kind has reached `limit`.
    ///
    /// # Errors
    /// [`StoreError`]; the count can be continued.
    pub async fn count_backlog(
        &self,
        count: &mut Count,
        limit: u32,
    ) -> Result<Option<Backlog>, StoreError> {
        let client = self.client().await?;
        if !count.jobs_done {
            let page = match &count.jobs_after {
                None => query_opt(&client, JOBS_FROM_START, &[&PAGE]).await?,
                Some(Place {
                    pipeline,
                    organization,
                    due_at,
                    id,
                }) => {
                    query_opt(
                        &client,
                        JOBS_AFTER,
                        &[&PAGE, pipeline, organization, due_at, id],
                    )
                    .await?
                }
            };
            let n = count_of(page.as_ref())?;
            count.so_far.jobs = count.so_far.jobs.saturating_add(n);
            count.jobs_done = i64::from(n) < PAGE || count.so_far.jobs >= limit;
            if let Some(row) = &page {
                let (pipeline, organization) =
                    (row.try_get("pipeline")?, row.try_get("organization")?);
                let (due_at, id) = (row.try_get("due_at")?, row.try_get("id")?);
                count.jobs_after = Some(Place {
                    pipeline,
                    organization,
                    due_at,
                    id,
                });
            }
        }
        if !count.letters_done {
            let page = query_opt(&client, LETTERS_AFTER, &[&PAGE, &count.letters_after]).await?;
            let n = count_of(page.as_ref())?;
            count.so_far.dead_letters = count.so_far.dead_letters.saturating_add(n);
            count.letters_done = i64::from(n) < PAGE || count.so_far.dead_letters >= limit;
            if let Some(row) = &page {
                count.letters_after = row.try_get("id")?;
            }
        }
        Ok((count.jobs_done && count.letters_done).then_some(count.so_far))
    }

    /// Returns the backlog, each kind counted up to about `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn backlog(&self, limit: u32) -> Result<Backlog, StoreError> {
        let mut count = Count::default();
        loop {
            if let Some(counted) = self.count_backlog(&mut count, limit).await? {
                return Ok(counted);
            }
        }
    }
}

fn count_of(page: Option<&tokio_postgres::Row>) -> Result<u32, StoreError> {
    let n: i64 = page.map_or(Ok(0), |row| row.try_get("n"))?;
    Ok(u32::try_from(n).unwrap_or(u32::MAX))
}
