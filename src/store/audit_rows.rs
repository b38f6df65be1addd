//! Reads the audit log, newest first, one page at a time.
//!
//! Rows of one job are found by `audit_log_of_job`. Everything else reads a bounded window of the
//! newest ids below the cursor and filters it: ids are in the order of time.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::error::StoreError;
use super::handle::Store;
use super::sql::query;
use crate::job::JobId;

/// Maximum number of rows that are read for one page.
const WINDOW: i64 = 20_000;
/// The number of rows that are read before that, and after those of one page: most pages need no
/// more. Times are not quite in the order of ids, so fewer rows prove nothing about older ones.
const FIRST_WINDOW: i64 = 2_000;

/// Which rows of the audit log to read.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// About this job.
    pub job: Option<JobId>,
    /// By this actor.
    pub who: Option<String>,
    /// With this word of an action.
    pub action: Option<String>,
    /// Written at this time or later.
    pub since: Option<OffsetDateTime>,
}

/// A row of the audit log.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AuditRow {
    /// Its number, in the order of time.
    pub id: i64,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub at: OffsetDateTime,
    /// The actor, as it named itself.
    pub who: String,
    /// The role in which it acted.
    pub role: String,
    /// The login, from Postgres.
    pub login: Option<String>,
    /// The address of the client, from Postgres.
    pub address: Option<String>,
    /// The token of the request to the console; `proxy` for a user of the proxy; none for a command.
    pub token: Option<String>,
    /// The request to the console.
    #[schemars(with = "Option<String>")]
    pub request_id: Option<Uuid>,
    /// The word of the action.
    pub action: String,
    /// The job that it is about.
    #[schemars(with = "Option<String>")]
    pub job_id: Option<JobId>,
    /// The reason, in the actor's words.
    pub reason: Option<String>,
    /// What the action changed, as it was.
    pub before: Option<Value>,
    /// What the action changed, as it is since.
    pub after: Option<Value>,
}

/// A page of the audit log.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AuditPage {
    /// Newest first.
    pub rows: Vec<AuditRow>,
    /// The cursor of the next page; `None` if there are no older rows.
    pub next: Option<i64>,
}

/// The columns of an [`AuditRow`], and of the window's end.
macro_rules! page {
    ($window:literal) => {
        concat!(
            "
    WITH newest AS MATERIALIZED (",
            $window,
            "
    ), edge AS (
        SELECT min(id) AS last, count(*) AS looked, coalesce(min(at) < $6::timestamptz, false) AS is_past FROM newest
    ), page AS (
        SELECT id FROM newest
        WHERE ($4::text IS NULL OR who = $4) AND ($5::text IS NULL OR action = $5) AND ($6::timestamptz IS NULL OR at >= $6)
        ORDER BY id DESC LIMIT $3
    )
    SELECT a.id, a.at, a.who, a.role, a.login, host(a.address) AS address, a.token, a.request_id, a.action, a.job_id, a.reason, a.before, a.after,
        edge.last, edge.looked, edge.is_past
    FROM edge LEFT JOIN page ON true LEFT JOIN audit_log a ON a.id = page.id ORDER BY a.id DESC"
        )
    };
}

/// `$1` is the cursor, `$2` the window, `$3` the page.
pub(super) const NEWEST: &str = page!(
    "
        SELECT id, at, who, action FROM audit_log WHERE id < $1::bigint ORDER BY id DESC LIMIT $2::bigint"
);

/// `$7` is the job.
pub(super) const OF_JOB: &str = page!(
    "
        SELECT id, at, who, action FROM audit_log WHERE job_id = $7::uuid AND id < $1::bigint
        ORDER BY job_id, id DESC LIMIT $2::bigint"
);

impl Store {
    /// Returns a page of at most `limit` rows below `cursor`, or the newest ones. A page of a
    /// filter may have fewer rows, or none, and a cursor nevertheless: at most 20,000 rows are
    /// read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_rows(
        &self,
        filter: &AuditFilter,
        cursor: Option<i64>,
        limit: i64,
    ) -> Result<AuditPage, StoreError> {
        let before = cursor.unwrap_or(i64::MAX);
        let AuditFilter {
            job,
            who,
            action,
            since,
        } = filter;
        let client = self.client().await?;
        let windows = [limit, FIRST_WINDOW, WINDOW];
        let mut windows = windows.into_iter().filter(|window| *window >= limit);
        loop {
            let window = windows.next().unwrap_or(WINDOW);
            let bounds: [&(dyn ToSql + Sync); 6] = [&before, &window, &limit, who, action, since];
            let found = match job {
                Some(job) => {
                    let parameters: Vec<_> = bounds.into_iter().chain([&job.0 as _]).collect();
                    query(&client, OF_JOB, &parameters).await?
                }
                None => query(&client, NEWEST, &bounds).await?,
            };
            let page = page(&found, window, limit)?;
            let is_full = i64::try_from(page.rows.len()) == Ok(limit);
            if is_full || page.next.is_none() || window >= WINDOW {
                return Ok(page);
            }
        }
    }
}

/// Returns a page from rows, each with the end of the window. A window without a row of the page
/// is one row of nulls.
fn page(found: &[Row], window: i64, limit: i64) -> Result<AuditPage, StoreError> {
    let Some(first) = found.first() else {
        return Ok(AuditPage {
            rows: Vec::new(),
            next: None,
        });
    };
    let (last, looked): (Option<i64>, i64) = (first.try_get("last")?, first.try_get("looked")?);
    let is_empty = first.try_get::<_, Option<i64>>("id")?.is_none();
    let rows: Vec<AuditRow> = if is_empty {
        Vec::new()
    } else {
        found.iter().map(audit_row).collect::<Result<_, _>>()?
    };
    // Ids are nearly in the order of time: nothing below a window of this size is recent enough.
    let is_past = window >= FIRST_WINDOW && first.try_get("is_past")?;
    let is_full = i64::try_from(rows.len()) == Ok(limit);
    let next = match rows.last() {
        Some(row) if is_full => Some(row.id),
        _ if looked == window && !is_past => last,
        _ => None,
    };
    Ok(AuditPage { rows, next })
}

fn audit_row(row: &Row) -> Result<AuditRow, StoreError> {
    let json = |column| -> Result<Option<Value>, StoreError> {
        let value: Option<Json<Value>> = row.try_get(column)?;
        Ok(value.map(|Json(value)| value))
    };
    Ok(AuditRow {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        who: row.try_get("who")?,
        role: row.try_get("role")?,
        login: row.try_get("login")?,
        address: row.try_get("address")?,
        token: row.try_get("token")?,
        request_id: row.try_get("request_id")?,
        action: row.try_get("action")?,
        job_id: row.try_get::<_, Option<Uuid>>("job_id")?.map(JobId),
        reason: row.try_get("reason")?,
        before: json("before")?,
        after: json("after")?,
    })
}
