//! Exports: rows as NDJSON (<https://github.com/ndjson/ndjson-spec>), a JSON document on each line.
//! The audit log records each export before it is sent. A longer list goes on where the header
//! `Link` (RFC 8288) points to.

use std::time::{Duration, Instant};

use axum::http::Method;
use axum::http::header::LINK;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::SemaphorePermit;

use super::campaigns::read_campaign;
use super::overview::AuditQuery;
use crate::console::answer;
use crate::console::call::Call;
use crate::console::parameters::with;
use crate::console::problem::Problem;
use crate::console::query;
use crate::console::routes::{
    Access, Handler, NDJSON, Parameter, Route, SchemaOf, VIEWER, handler, schema,
};
use crate::console::serve::API;
use crate::operations;
use crate::store::{Action, AuditRow, CampaignItemRow};

/// Most rows of an export.
const ROWS: i64 = 10_000;
/// After this many bytes, an export ends with the row that it has begun.
const BYTES: usize = 8 << 20;
/// Rows that are read at once.
const PAGE: i64 = 200;
/// After this time, an export ends: with a filter, many reads may find nothing.
const WITHIN: Duration = Duration::from_secs(10);

const fn parameter(name: &'static str, about: &'static str) -> Parameter {
    Parameter {
        name,
        about,
        is_several: false,
    }
}

const LIMIT: Parameter = parameter("limit", "rows, 1 to 10,000, which is the default");

pub(in crate::console) const ROUTES: &[Route] = &[
    export(
        ("export_audit", "/audit/export"),
        "Exports the audit log as NDJSON, the newest first; `Link` leads to the rest; the export is audited",
        Action::ExportAudit,
        &[
            parameter("job", "about this job"),
            parameter("who", "by this actor"),
            parameter("action", "with this word"),
            parameter(
                "since",
                "within this time (30m, 2h, 3d), or at this time or later (RFC 3339)",
            ),
            parameter("before", "the cursor in the `Link` of the export before"),
            LIMIT,
        ],
        (schema::<AuditRow>, handler!(audit)),
    ),
    export(
        ("export_campaign", "/campaigns/{number}/report"),
        "Exports the jobs of a campaign with what became of them as NDJSON; `Link` leads to the rest; the export is audited",
        Action::ExportCampaign,
        &[
            parameter("after", "the cursor in the `Link` of the export before"),
            LIMIT,
        ],
        (schema::<CampaignItemRow>, handler!(campaign)),
    ),
];

const fn export(
    (name, path): (&'static str, &'static str),
    about: &'static str,
    action: Action,
    parameters: &'static [Parameter],
    (output, api): (SchemaOf, Handler),
) -> Route {
    let access: Access = VIEWER;
    Route {
        name,
        method: Method::GET,
        path,
        about,
        access,
        action: Some(action),
        parameters,
        input: None,
        output,
        media_type: NDJSON,
        api: Some(api),
        page: None,
    }
}

/// Rows as lines.
struct Lines {
    text: Vec<u8>,
    rows: i64,
    most: i64,
    begun: Instant,
}

impl Lines {
    /// # Errors
    /// `invalid_filter`.
    fn new(limit: Option<i64>) -> Result<Self, Problem> {
        Ok(Self {
            text: Vec::new(),
            rows: 0,
            most: query::limit_to(limit.unwrap_or(ROWS), ROWS)?,
            begun: Instant::now(),
        })
    }

    /// Returns how many rows to read next.
    fn wanted(&self) -> i64 {
        (self.most - self.rows).min(PAGE)
    }

    fn is_full(&self) -> bool {
        self.rows >= self.most || self.text.len() >= BYTES
    }

    fn is_over(&self) -> bool {
        self.is_full() || self.begun.elapsed() >= WITHIN
    }

    /// Adds rows until it is full, and returns the last one of them if others follow.
    fn add<'r, T: Serialize>(&mut self, rows: &'r [T]) -> Result<Option<&'r T>, Problem> {
        for (at, row) in rows.iter().enumerate() {
            serde_json::to_writer(&mut self.text, row)
                .map_err(|error| Problem::internal(error.to_string()))?;
            self.text.push(b'\n');
            self.rows += 1;
            if self.is_full() && at + 1 < rows.len() {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Records the export, and returns it as the answer. `next` is the parameter and the position
    /// from which the next export goes on.
    async fn answer(self, call: &Call, next: Option<(&str, String)>) -> Result<Response, Problem> {
        let (Some(action), path) = (call.route.action, &call.asked) else {
            return Err(Problem::internal("an export is an action"));
        };
        let what = json!({"path": path.strip_prefix(API).unwrap_or(path), "query": call.query, "rows": self.rows});
        operations::record_export(call.acts(), &call.silent_actor(), action, &what).await?;
        let link = next.map(|(parameter, position)| {
            let cursor = call.cursor(position);
            let query = with(&call.query, &[(parameter, Some(&cursor))]);
            format!("<{path}?{query}>; rel=\"next\"")
        });
        let mut response = answer::lines(self.text);
        if let Some(link) = link {
            answer::set(&mut response, LINK, &link);
        }
        Ok(response)
    }
}

/// An export reads many rows, so there is one at a time.
fn alone(call: &Call) -> Result<SemaphorePermit<'_>, Problem> {
    let permit = call.console.exports.try_acquire();
    permit.map_err(|_| Problem::too_busy("another export is under way").after(5))
}

async fn audit(call: Call) -> Result<Response, Problem> {
    let asked: AuditQuery = call.query()?;
    let _alone = alone(&call)?;
    let mut lines = Lines::new(asked.limit)?;
    let mut next: Option<i64> = call.position(asked.before.as_deref())?;
    let filter = asked.filter();
    loop {
        let page = call
            .reads()
            .audit_rows(&filter, next, lines.wanted())
            .await?;
        let cut = lines.add(&page.rows)?;
        next = cut.map(|row| row.id).or(page.next);
        if next.is_none() || lines.is_over() {
            break;
        }
    }
    let next = next.map(|next| ("before", next.to_string()));
    lines.answer(&call, next).await
}

/// The query of [`campaign`].
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Report {
    after: Option<String>,
    limit: Option<i64>,
}

async fn campaign(call: Call) -> Result<Response, Problem> {
    let number = read_campaign(&call).await?.id;
    let Report { after, limit } = call.query()?;
    let _alone = alone(&call)?;
    let mut lines = Lines::new(limit)?;
    let mut next: Option<i32> = Some(call.position(after.as_deref())?.unwrap_or(0));
    while let Some(after) = next.filter(|_| !lines.is_over()) {
        let wanted = lines.wanted();
        let items = call.reads().campaign_items(number, after, wanted).await?;
        let last = query::last_of_full(&items, wanted);
        next = lines.add(&items)?.or(last).map(|item| item.n);
    }
    let next = next.map(|next| ("after", next.to_string()));
    lines.answer(&call, next).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_their_limit_and_name_the_last_row_if_others_follow() {
        let mut lines = Lines::new(Some(3)).unwrap();
        assert_eq!(lines.add(&[1, 2]).unwrap(), None);
        assert_eq!((lines.wanted(), lines.is_full()), (1, false));
        assert_eq!(lines.add(&[3, 4]).unwrap(), Some(&3));
        assert!(lines.is_full());
        assert_eq!(lines.text, b"1\n2\n3\n");
        let large = ["x".repeat(BYTES), "y".to_owned()];
        let mut lines = Lines::new(None).unwrap();
        assert_eq!(lines.add(&large).unwrap(), Some(&large[0]));
        for wrong in [0, -1, 10_001] {
            assert!(Lines::new(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
