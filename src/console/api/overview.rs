//! The state of everything, what is stuck, and who did what.

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::console::answer;
use crate::console::call::Call;
use crate::console::changes::Change;
use crate::console::in_force::{self, InForce};
use crate::console::pages;
use crate::console::panels::{OpenLetters, PanelError, Seen, pipeline_lanes};
use crate::console::problem::Problem;
use crate::console::query;
use crate::console::routes::{Route, reads};
use crate::console::summary::{Facts, Summary};
use crate::job::JobId;
use crate::store::{
    AuditFilter, AuditRow, Charts, ControlList, EndedReplica, FailureGroup, FleetReplica,
    GroupStatus, Lanes, OpenJobs, Since, StuckCode, StuckRow,
};

/// Most failure groups of the overview.
const GROUPS: usize = 10;

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!(
        "status",
        "/",
        "Returns what is open, stuck, held and running, and what has changed",
        [],
        Status,
        status,
        pages::overview::page
    ),
    reads!("stuck", "/stuck", "Returns what does not move, why, and what to do", ["code": "one of the stuck codes"], Vec<StuckRow>, stuck, pages::stuck::page),
    reads!("audit", "/audit", "Returns who did what, the newest first", [
        "job": "about this job", "who": "by this actor", "action": "with this word", "since": "within this time (30m, 2h, 3d), or at this time or later (RFC 3339)",
        "before": "the cursor of the page: `next` of the page before, with the same filter", "limit": "rows, 1 to 200"
    ], AuditList, audit, pages::overview::audit),
];

/// The state of everything. A part that could not be read is null, and `errors` says why.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct Status {
    /// The state in a sentence, and where the cause of the most urgent finding lies.
    pub(in crate::console) summary: Summary,
    /// What is in force for all jobs.
    pub(in crate::console) in_force: Vec<InForce>,
    /// Open jobs by state, each up to 10,000.
    #[schemars(with = "Option<OpenJobs>")]
    pub(in crate::console) open: Seen<OpenJobs>,
    /// Open dead letters.
    #[schemars(with = "Option<OpenLetters>")]
    pub(in crate::console) dead_letters: Seen<OpenLetters>,
    /// The lanes, and the number of replicas that they need.
    #[schemars(with = "Option<Lanes>")]
    pub(in crate::console) lanes: Seen<Lanes>,
    /// The codes with jobs that do not move.
    pub(in crate::console) stuck: Option<Vec<StuckRow>>,
    /// Holds, the pause, kill switches and circuits in force.
    #[schemars(with = "Option<ControlList>")]
    pub(in crate::console) controls: Seen<ControlList>,
    /// The running replicas.
    #[schemars(with = "Option<Vec<FleetReplica>>")]
    pub(in crate::console) replicas: Seen<Vec<FleetReplica>>,
    /// The replicas that ended within a day, the last first.
    #[schemars(with = "Option<Vec<EndedReplica>>")]
    pub(in crate::console) ended: Seen<Vec<EndedReplica>>,
    /// Failure groups that are new, regressed or growing.
    pub(in crate::console) groups: Option<Vec<FailureGroup>>,
    /// When the last failure of any group was seen.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub(in crate::console) last_failure: Option<OffsetDateTime>,
    /// The last hour, minute by minute.
    #[schemars(with = "Option<Charts>")]
    pub(in crate::console) charts: Seen<Charts>,
    /// What has changed within the last hour, the last first, at most 50.
    #[schemars(with = "Option<Vec<Change>>")]
    pub(in crate::console) changes: Seen<Vec<Change>>,
    /// Parts that could not be read.
    pub(in crate::console) errors: Vec<PanelError>,
    /// The database's clock.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub(in crate::console) now: OffsetDateTime,
}

impl Status {
    /// Returns the codes with jobs that do not move, or why they could not be read.
    ///
    /// # Errors
    /// A sentence.
    pub(in crate::console) fn stuck_rows(&self) -> Result<&Vec<StuckRow>, String> {
        self.stuck.as_ref().ok_or_else(|| self.error_of("stuck"))
    }

    /// Returns the groups that are new, regressed or growing, or why they could not be read.
    ///
    /// # Errors
    /// A sentence.
    pub(in crate::console) fn urgent_groups(&self) -> Result<&Vec<FailureGroup>, String> {
        self.groups.as_ref().ok_or_else(|| self.error_of("groups"))
    }

    fn error_of(&self, panel: &str) -> String {
        let found = self.errors.iter().find(|error| error.panel == panel);
        found.map_or_else(String::new, |error| error.error.clone())
    }
}

async fn status(call: Call) -> Result<Response, Problem> {
    answer::json(&Box::pin(read_status(&call)).await?)
}

/// Reads the state of everything.
///
/// # Errors
/// `postgres_away`, `too_slow`.
pub(in crate::console) async fn read_status(call: &Call) -> Result<Status, Problem> {
    let (panels, store) = (call.panels(), call.reads());
    let (open, dead_letters, lanes, stuck, controls, replicas, ended, groups, charts, changes, now) = tokio::join!(
        panels.open(store),
        panels.letters(store),
        panels.lanes(store),
        panels.stuck(store),
        panels.controls(store),
        panels.fleet(store),
        panels.ended(store),
        panels.groups(store),
        panels.charts(store),
        panels.changes(store),
        store.now()
    );
    let now = now?;
    let facts = Facts {
        controls: controls.value().map(|list| list.controls.as_slice()),
        stuck: stuck.value().map(Vec::as_slice),
        fleet: replicas.value().map(Vec::as_slice),
        ended: ended.value().map(Vec::as_slice),
        lanes: lanes.value().map(|lanes| lanes.lanes.as_slice()),
        now,
    };
    let in_force = in_force::read(&call.console).await.lines;
    let errors = [
        open.error("open"),
        dead_letters.error("dead_letters"),
        lanes.error("lanes"),
        stuck.error("stuck"),
        controls.error("controls"),
        replicas.error("replicas"),
        ended.error("ended"),
        groups.error("groups"),
        charts.error("charts"),
        changes.error("changes"),
    ];
    Ok(Status {
        summary: facts.summary(),
        in_force,
        stuck: stuck.value().map(|rows| counted(rows)),
        groups: groups.value().map(|rows| {
            let mut urgent = urgent(rows);
            for group in &mut urgent {
                group.sample = call.shown_text(&group.sample);
            }
            urgent
        }),
        last_failure: groups
            .value()
            .and_then(|rows| rows.first())
            .map(|group| group.last_seen_at),
        errors: errors.into_iter().flatten().collect(),
        open,
        dead_letters,
        lanes,
        controls,
        replicas,
        ended,
        charts,
        changes,
        now,
    })
}

/// Returns the codes that have jobs, or could not be read.
fn counted(rows: &[StuckRow]) -> Vec<StuckRow> {
    let is_there =
        |row: &&StuckRow| row.error.is_some() || row.count.is_some_and(|count| !count.is_zero());
    rows.iter().filter(is_there).cloned().collect()
}

/// Returns the groups that are new, regressed, or growing, those with the most open jobs first.
pub(super) fn urgent(groups: &[FailureGroup]) -> Vec<FailureGroup> {
    let is_urgent = |group: &&FailureGroup| match group.status {
        GroupStatus::New | GroupStatus::Regressed => true,
        GroupStatus::Ongoing => group.trend.last_hour > group.trend.hour_before,
        GroupStatus::Muted | GroupStatus::Resolved => false,
    };
    let mut urgent: Vec<FailureGroup> = groups.iter().filter(is_urgent).cloned().collect();
    // Those whose jobs have all gone on are the least urgent.
    urgent.sort_by_key(|group| {
        std::cmp::Reverse(group.parked.at_least() + group.retrying.at_least())
    });
    urgent.truncate(GROUPS);
    urgent
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
    match code {
        None => {
            let seen = call.panels().stuck(call.reads()).await;
            Ok(seen.required()?.to_vec())
        }
        Some(code) => {
            let code: StuckCode = code.parse().map_err(|error: crate::store::UnknownCode| {
                Problem::invalid_filter(error.to_string())
            })?;
            let row = call.reads().stuck_code(code, &pipeline_lanes()).await?;
            Ok(vec![row])
        }
    }
}

/// The query of the audit log.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::console) struct AuditQuery {
    job: Option<JobId>,
    who: Option<String>,
    action: Option<String>,
    since: Option<Since>,
    pub(super) before: Option<String>,
    pub(super) limit: Option<i64>,
}

impl AuditQuery {
    pub(in crate::console) fn filter(self) -> AuditFilter {
        AuditFilter {
            job: self.job,
            who: self.who,
            action: self.action,
            since: self.since.map(|since| since.at(OffsetDateTime::now_utc())),
        }
    }
}

/// A page of the audit log.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct AuditList {
    /// Newest first.
    pub(in crate::console) rows: Vec<AuditRow>,
    /// The cursor of the next page: its `before`, with the same filter; `None` if there are no
    /// older rows.
    pub(in crate::console) next: Option<String>,
}

async fn audit(call: Call) -> Result<Response, Problem> {
    answer::json(&read_audit(&call).await?)
}

/// Reads a page of the audit log.
///
/// # Errors
/// `invalid_filter`, `postgres_away`.
pub(in crate::console) async fn read_audit(call: &Call) -> Result<AuditList, Problem> {
    let asked: AuditQuery = call.query()?;
    let limit = query::limit(asked.limit)?;
    let before = call.position(asked.before.as_deref())?;
    let filter = asked.filter();
    let page = call.reads().audit_rows(&filter, before, limit).await?;
    Ok(AuditList {
        rows: page.rows,
        next: page.next.map(|next| call.cursor(next)),
    })
}
