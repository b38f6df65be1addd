//! Jobs: lists, one job, and what people and producers do with it.

use std::time::Duration;

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::console::call::{ActFault, Call, Changed, of_job, tag};
use crate::console::mask::masked;
use crate::console::problem::Problem;
use crate::console::query;
use crate::console::routes::{Access, Route, acts, reads};
use crate::console::{answer, pages};
use crate::job::{JobId, JobState};
use crate::operations::{self, Explained};
use crate::store::{
    ActionResult, Actor, AuditFilter, InvalidCode, JobFilter, JobRow, JobView, Role, Since, Store,
    Target, Timeline,
};

/// Everybody who may read; a limited token sees its own jobs.
pub(super) const VIEWER: Access = Access::From {
    role: Role::Viewer,
    is_scoped: true,
};
const PRODUCER: Access = Access::From {
    role: Role::Producer,
    is_scoped: true,
};
/// The longest wait for a job to end.
const LONGEST_WAIT: u64 = 30;
/// How often a job is looked at during a wait.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many rows of the audit log are told to somebody whose job has moved on.
const LAST_ACTIONS: i64 = 5;

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!(
        for VIEWER;
        "list_jobs",
        "/jobs",
        "Lists jobs, the newest first",
        [
            "state" several: "ready, running, waiting, succeeded, cancelled or parked",
            "pipeline" several: "the pipeline",
            "organization" several: "the organization",
            "source" several: "the source",
            "parent": "the job whose follow-ups to list",
            "code" several: "the error code, or its beginning and `*`",
            "group": "the failure group",
            "key": "the dedupe key",
            "replica": "the replica that owns it",
            "cause": "the key of what it waits for",
            "stage" several: "the stage",
            "since": "accepted within this time (30m, 2h, 3d), or at this time or later (RFC 3339)",
            "item": "the work item that it changed",
            "before": "the cursor of the page: `next` of the page before, with the same filter",
            "limit": "rows, 1 to 200; 50 by default",
        ],
        JobPage,
        list,
        pages::jobs::page
    ),
    reads!(
        for PRODUCER;
        "job_by_key",
        "/jobs/by-key",
        "Returns a job by its source and dedupe key, and waits for its end if asked to",
        [
            "source": "the source; a producer's own by default",
            "key": "the dedupe key",
            "wait": "seconds to wait for the end, 30 at most",
        ],
        JobRow,
        by_key
    ),
    reads!(
        for VIEWER;
        "show_job",
        "/jobs/{id}",
        "Returns a job with its history, outputs masked; the ETag is `generation.epoch`",
        [],
        JobView,
        show,
        pages::job::page
    ),
    reads!(
        for VIEWER;
        "explain_job",
        "/jobs/{id}/explain",
        "Explains in a sentence the state of a job, its cause and what happens next",
        [],
        Explained,
        explain
    ),
    reads!(
        for VIEWER;
        "job_timeline",
        "/jobs/{id}/timeline",
        "Returns what a job did and waited for, without a gap, and what else happened when",
        [],
        Timeline,
        timeline
    ),
    acts!("retry_job", "/jobs/{id}/retry", "Makes a job due now, with all its attempts", Retry, true, Reason => Changed, retry, to_job),
    acts!("cancel_job", "/jobs/{id}/cancel", "Cancels a job and its open follow-ups", Cancel, true, Reason => Changed, cancel, to_job),
    acts!("configure_job", "/jobs/{id}/configure", "Sets the account that a job waits for", Configure, true, Account => Changed, configure, to_job),
];

/// Returns the page that a form leads to.
pub(super) fn to_job(call: &Call, _: &Changed) -> String {
    format!("/jobs/{}", call.path["id"])
}

/// The reason of an action.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::console) struct Reason {
    /// Why, for the audit log.
    pub(in crate::console) reason: String,
}

/// The account that a job waits for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Account {
    /// The id of the account.
    account: String,
    /// Why, for the audit log.
    reason: String,
}

/// Which jobs to list.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::console) struct JobQuery {
    pub(in crate::console) state: Vec<JobState>,
    pipeline: Vec<String>,
    organization: Vec<String>,
    source: Vec<String>,
    parent: Option<JobId>,
    code: Vec<String>,
    group: Option<String>,
    key: Option<String>,
    replica: Option<i64>,
    cause: Option<String>,
    stage: Vec<String>,
    since: Option<Since>,
    item: Option<i64>,
    before: Option<String>,
    limit: Option<i64>,
}

/// A page of jobs.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct JobPage {
    /// The jobs, the newest first.
    pub(in crate::console) jobs: Vec<JobRow>,
    /// The cursor of the next page: its `before`, with the same filter; `None` if this is the last
    /// one.
    pub(in crate::console) next: Option<String>,
    /// How far was looked before the page was full, although there are older jobs.
    pub(in crate::console) looked: Option<Looked>,
}

/// How far a list was read.
#[derive(Clone, Copy, Serialize, JsonSchema)]
pub(in crate::console) struct Looked {
    /// Number of jobs that were read.
    pub(in crate::console) jobs: i64,
    /// When the last of them was accepted; a follow-up counts as accepted with its first parent.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub(in crate::console) back_to: OffsetDateTime,
}

impl JobQuery {
    /// Returns the filter, without what the token and the page add to it.
    ///
    /// # Errors
    /// `invalid_filter`.
    pub(in crate::console) fn filter(self) -> Result<JobFilter, Problem> {
        let codes = self.code.iter().map(|code| code.parse());
        let codes: Result<Vec<_>, InvalidCode> = codes.collect();
        let filter = JobFilter {
            states: self.state,
            pipelines: self.pipeline,
            organizations: self.organization,
            sources: self.source,
            parent: self.parent,
            error_codes: codes.map_err(|error| Problem::invalid_filter(error.to_string()))?,
            fingerprint: self.group,
            dedupe_key: self.key,
            replica: self.replica,
            cause: self.cause,
            stages: self.stage,
            since: self.since.map(|since| since.at(OffsetDateTime::now_utc())),
            work_item: self.item,
            before: None,
            limit: query::limit(self.limit)?,
        };
        filter
            .checked()
            .map_err(|error| Problem::invalid_filter(error.to_string()))
    }
}

async fn list(call: Call) -> Result<Response, Problem> {
    answer::json(&page_of_jobs(&call, call.query()?).await?)
}

/// Reads a page of jobs that the token may see.
///
/// # Errors
/// `invalid_filter`; `not_found` for an organization of others.
pub(in crate::console) async fn page_of_jobs(
    call: &Call,
    query: JobQuery,
) -> Result<JobPage, Problem> {
    let before = call.position(query.before.as_deref())?;
    let asked = query.filter()?;
    let filter = JobFilter {
        organizations: organizations(call, asked.organizations)?,
        sources: match &call.who.token.source {
            Some(own) => vec![own.clone()],
            None => asked.sources,
        },
        before,
        ..asked
    };
    let listed = call.reads().jobs(&filter).await?;
    let last = query::last_of_full(&listed.jobs, filter.limit).map(|job| job.id);
    let next = last.or_else(|| listed.stopped.map(|stopped| stopped.before));
    Ok(JobPage {
        next: next.map(|next| call.cursor(next)),
        jobs: listed.jobs.into_iter().map(|row| call.shown(row)).collect(),
        looked: listed.stopped.map(|stopped| Looked {
            jobs: stopped.looked,
            back_to: stopped.back_to,
        }),
    })
}

/// Returns the organizations to list: for a token that is limited to organizations, some of them.
fn organizations(call: &Call, asked: Vec<String>) -> Result<Vec<String>, Problem> {
    let Some(own) = &call.who.token.organizations else {
        return Ok(asked);
    };
    if let Some(other) = asked.iter().find(|asked| !call.who.sees(asked)) {
        return Err(Problem::not_found(format!(
            "there is no organization {other}"
        )));
    }
    match own.as_slice() {
        _ if !asked.is_empty() => Ok(asked),
        [only] => Ok(vec![only.clone()]),
        several => Err(Problem::invalid_filter(format!(
            "expected one of the token's organizations: {}",
            several.join(", ")
        ))),
    }
}

/// The query of [`by_key`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByKey {
    #[serde(default)]
    source: Option<String>,
    key: String,
    #[serde(default)]
    wait: u64,
}

async fn by_key(call: Call) -> Result<Response, Problem> {
    let asked: ByKey = call.query()?;
    if asked.wait > LONGEST_WAIT {
        return Err(Problem::invalid_filter(format!(
            "expected a wait of at most {LONGEST_WAIT} s, got {} s",
            asked.wait
        )));
    }
    let source = asked.source.or_else(|| call.who.token.source.clone());
    let source = source.ok_or_else(|| Problem::invalid_filter("expected a source, got none"))?;
    let end = tokio::time::Instant::now() + Duration::from_secs(asked.wait);
    loop {
        let row = call.reads().job_by_key(&source, &asked.key).await?;
        let seen = row.filter(|row| call.who.sees_job(&row.source, &row.organization));
        let is_over = tokio::time::Instant::now() >= end;
        match seen {
            Some(row) if is_over || row.state.is_done() || row.state == JobState::Parked => {
                let row = call.shown(row);
                return answer::json_tagged(&row, &tag(row.generation, row.epoch));
            }
            None if is_over => {
                return Err(Problem::not_found(
                    "there is no job with this source and key",
                ));
            }
            _ => tokio::time::sleep_until(end.min(tokio::time::Instant::now() + LOOK_EVERY)).await,
        }
    }
}

async fn show(call: Call) -> Result<Response, Problem> {
    let view = view(&call).await?;
    answer::json_tagged(&view, &tag(view.row.generation, view.row.epoch))
}

/// Reads the job of the path with its history; what may name a person in its outputs is masked.
async fn view(call: &Call) -> Result<JobView, Problem> {
    let id = call.job().await?.id;
    let view = call.reads().job_view(id).await?;
    let mut view = view.ok_or_else(|| Problem::not_found(format!("there is no job {id}")))?;
    for done in &mut view.checkpoints {
        done.output = masked(&done.output, &call.console.parts.keyring);
    }
    for tried in &mut view.attempts {
        tried.message = call.shown_text(&tried.message);
    }
    view.row = call.shown(view.row);
    view.children = view
        .children
        .into_iter()
        .map(|row| call.shown(row))
        .collect();
    Ok(view)
}

/// Reads the course of the job of the path.
///
/// # Errors
/// `not_found`, `postgres_away`.
pub(in crate::console) async fn read_timeline(call: &Call) -> Result<Timeline, Problem> {
    let id = call.job().await?.id;
    let timeline = call.reads().timeline(id).await?;
    let mut timeline =
        timeline.ok_or_else(|| Problem::not_found(format!("there is no job {id}")))?;
    timeline.job = call.shown(timeline.job);
    Ok(timeline)
}

async fn timeline(call: Call) -> Result<Response, Problem> {
    answer::json(&read_timeline(&call).await?)
}

async fn explain(call: Call) -> Result<Response, Problem> {
    let row = call.job().await?;
    answer::json(&operations::explain(call.reads(), &row, call.who.audience()).await?)
}

async fn retry(call: &Call) -> Result<Changed, Problem> {
    let input: Reason = call.input()?;
    act(call, &input.reason, async |store, actor, target| {
        Ok(operations::retry(store, actor, target).await?)
    })
    .await
}

async fn cancel(call: &Call) -> Result<Changed, Problem> {
    let input: Reason = call.input()?;
    act(call, &input.reason, async |store, actor, target| {
        Ok(operations::cancel(store, actor, target).await?)
    })
    .await
}

async fn configure(call: &Call) -> Result<Changed, Problem> {
    let Account { account, reason } = call.input()?;
    act(call, &reason, async |store, actor, target| {
        Ok(operations::configure(store, actor, target, &account).await?)
    })
    .await
}

/// Carries out an action on the job of the path.
///
/// # Errors
/// Errors of the action; `moved_on` with what has happened to the job meanwhile.
pub(in crate::console) async fn act(
    call: &Call,
    reason: &str,
    action: impl AsyncFnOnce(&Store, &Actor, &Target) -> Result<ActionResult, ActFault>,
) -> Result<Changed, Problem> {
    let actor = call.actor(reason)?;
    let target = call.target().await?;
    let acted = call.once(&actor, async |store, actor| {
        of_job(action(store, actor, &target).await?)
    });
    told(call, acted.await).await
}

/// Adds to `moved_on` what has happened: where the job stands, and what people did last.
///
/// # Errors
/// The problem that it is given.
pub(super) async fn told<T>(call: &Call, acted: Result<T, Problem>) -> Result<T, Problem> {
    let mut problem = match acted {
        Err(problem) if problem.code == "moved_on" => problem,
        other => return other,
    };
    // What cannot be read is left out: that the job has moved on is the answer.
    if let Ok(row) = call.job().await
        && let Some(now) = problem.now.as_mut()
    {
        if let Ok(explained) = operations::explain(call.reads(), &row, call.who.audience()).await {
            now["explanation"] = explained.explanation.into();
        }
        let of_job = AuditFilter {
            job: Some(row.id),
            ..AuditFilter::default()
        };
        if let Ok(page) = call.reads().audit_rows(&of_job, None, LAST_ACTIONS).await {
            let last = page.rows.iter().map(|row| {
                let at = row.at.format(&Rfc3339).unwrap_or_default();
                json!({"at": at, "who": row.who, "action": row.action, "reason": row.reason})
            });
            now["last_actions"] = last.collect();
        }
    }
    Err(problem)
}
