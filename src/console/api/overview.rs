//! What is open, what is stuck, and who did what.

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::console::answer;
use crate::console::call::Call;
use crate::console::pages;
use crate::console::problem::Problem;
use crate::console::query;
use crate::console::routes::{Route, reads};
use crate::job::JobId;
use crate::pipelines;
use crate::store::{
    AuditFilter, AuditPage, CappedCount, ControlRow, OpenJobs, PipelineLanes, ReplicaRow,
    StuckCode, StuckRow,
};

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!(
        "status",
        "/",
        "Returns what is open, stuck, held and running",
        [],
        Status,
        status,
        pages::overview::page
    ),
    reads!("stuck", "/stuck", "Returns what does not move, why, and what to do", ["code": "one of the stuck codes"], Vec<StuckRow>, stuck, pages::overview::stuck),
    reads!(
        "replicas",
        "/replicas",
        "Returns the running replicas",
        [],
        Vec<ReplicaRow>,
        replicas
    ),
    reads!("audit", "/audit", "Returns who did what, the newest first", [
        "job": "about this job", "who": "by this actor", "action": "with this word", "since": "at this time or later, RFC 3339",
        "before": "the cursor of the next page", "limit": "rows, 1 to 200"
    ], AuditPage, audit, pages::overview::audit),
];

/// The state of everything in short.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct Status {
    /// Open jobs by state, each up to 10,000.
    pub(in crate::console) open: OpenJobs,
    /// Open dead letters, up to 10,000.
    pub(in crate::console) dead_letters: CappedCount,
    /// The codes with jobs that do not move.
    pub(in crate::console) stuck: Vec<StuckRow>,
    /// Holds, the pause, kill switches and circuits in force.
    pub(in crate::console) controls: Vec<ControlRow>,
    /// The running replicas.
    pub(in crate::console) replicas: Vec<ReplicaRow>,
    /// The database's clock.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub(in crate::console) now: OffsetDateTime,
}

async fn status(call: Call) -> Result<Response, Problem> {
    answer::json(&read_status(&call).await?)
}

/// Reads the state of everything.
///
/// # Errors
/// `postgres_away`, `too_slow`.
pub(in crate::console) async fn read_status(call: &Call) -> Result<Status, Problem> {
    let store = call.reads();
    let lanes = PipelineLanes::of(&pipelines::registry());
    let (open, dead_letters, stuck, controls, replicas, now) = tokio::join!(
        store.open_jobs(None),
        store.count_open_letters(),
        store.stuck(&lanes),
        store.controls(),
        store.replicas(),
        store.now()
    );
    let is_there =
        |row: &StuckRow| row.error.is_some() || row.count.is_some_and(|count| !count.is_zero());
    Ok(Status {
        open: open?,
        dead_letters: dead_letters?,
        stuck: stuck.into_iter().filter(is_there).collect(),
        controls: controls?,
        replicas: replicas?,
        now: now?,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stuck {
    #[serde(default)]
    code: Option<String>,
}

async fn stuck(call: Call) -> Result<Response, Problem> {
    answer::json(&read_stuck(&call).await?)
}

/// Reads what is stuck.
///
/// # Errors
/// `invalid_filter`, `postgres_away`.
pub(in crate::console) async fn read_stuck(call: &Call) -> Result<Vec<StuckRow>, Problem> {
    let Stuck { code } = call.query()?;
    let lanes = PipelineLanes::of(&pipelines::registry());
    match code {
        None => Ok(call.reads().stuck(&lanes).await),
        Some(code) => {
            let code: StuckCode = code.parse().map_err(|error: crate::store::UnknownCode| {
                Problem::invalid_filter(error.to_string())
            })?;
            Ok(vec![call.reads().stuck_code(code, &lanes).await?])
        }
    }
}

async fn replicas(call: Call) -> Result<Response, Problem> {
    answer::json(&call.reads().replicas().await?)
}

/// The query of the audit log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    #[serde(default)]
    job: Option<JobId>,
    #[serde(default)]
    who: Option<String>,
    #[serde(default)]
    action: Option<String>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
    #[serde(default)]
    before: Option<i64>,
    #[serde(default)]
    limit: Option<i64>,
}

async fn audit(call: Call) -> Result<Response, Problem> {
    answer::json(&read_audit(&call).await?)
}

/// Reads a page of the audit log.
///
/// # Errors
/// `invalid_filter`, `postgres_away`.
pub(in crate::console) async fn read_audit(call: &Call) -> Result<AuditPage, Problem> {
    let asked: AuditQuery = call.query()?;
    let limit = query::limit(asked.limit)?;
    let filter = AuditFilter {
        job: asked.job,
        who: asked.who,
        action: asked.action,
        since: asked.since,
    };
    Ok(call
        .reads()
        .audit_rows(&filter, asked.before, limit)
        .await?)
}
