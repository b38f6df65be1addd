//! The page of each alert: its runbook, the numbers that belong to it as they are now, and what is
//! safe to do.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::overview::urgent;
use crate::alerts::{ALERTS, Alert};
use crate::console::answer;
use crate::console::call::Call;
use crate::console::changes::is_death;
use crate::console::pages;
use crate::console::panels::Panels;
use crate::console::problem::Problem;
use crate::console::routes::{Route, reads};
use crate::operations::name_of_scope;
use crate::store::{
    ChartPoint, ControlRow, EndedReplica, FailureGroup, FleetReplica, LaneRow, Store, StuckCode,
};

/// Most holds, and most groups, that are listed.
const LISTED: usize = 10;
/// The minutes of a chart of which an alert's numbers are added up.
const MINUTES: usize = 15;

pub(in crate::console) const ROUTES: &[Route] = &[reads!(
    "alert",
    "/go/{alert}",
    "Returns an alert's runbook, its numbers as they are now, and what is safe to do",
    [],
    AlertNow,
    alert,
    pages::alert::page
)];

/// An alert as it stands now.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct AlertNow {
    /// Its name.
    pub(in crate::console) name: &'static str,
    /// `critical`, `warning` or `info`.
    pub(in crate::console) severity: &'static str,
    /// One sentence.
    pub(in crate::console) summary: &'static str,
    /// Markdown: meaning, first command, safe actions.
    pub(in crate::console) runbook: &'static str,
    /// Its numbers.
    pub(in crate::console) numbers: Vec<Number>,
    /// Pages with what is safe to do.
    pub(in crate::console) actions: Vec<Link>,
}

/// A number, or why it is not known.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::console) struct Number {
    /// What it counts.
    pub(in crate::console) name: String,
    /// The number, in words.
    pub(in crate::console) value: Option<String>,
    /// Why it could not be read.
    pub(in crate::console) error: Option<String>,
    /// The page behind it.
    pub(in crate::console) path: Option<String>,
}

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub(in crate::console) struct Link {
    /// What it is for.
    pub(in crate::console) title: &'static str,
    /// Its path.
    pub(in crate::console) path: &'static str,
}

/// What an alert's page shows.
struct About {
    sources: &'static [Source],
    actions: &'static [Link],
}

/// Where numbers come from.
#[derive(Debug, Clone, Copy)]
enum Source {
    Open,
    Stuck(StuckCode),
    Lanes,
    Scale,
    Replicas,
    Ended,
    Letters,
    Holds,
    Groups,
    Flow,
    Database,
}

macro_rules! link {
    ($name:ident, $title:literal, $path:literal) => {
        const $name: Link = Link {
            title: $title,
            path: $path,
        };
    };
}

link!(
    FLEET,
    "Replicas, lanes and how the last ones ended",
    "/fleet"
);
link!(STUCK, "What does not move", "/stuck");
link!(
    GROUPS,
    "Failure groups: retry a group as a campaign",
    "/groups"
);
link!(
    CONTROLS,
    "Place or end a hold, pause everything",
    "/controls"
);
link!(PARKED, "Parked jobs", "/jobs?state=parked");
link!(WAITING, "Waiting jobs", "/jobs?state=waiting");
link!(READY, "Ready jobs", "/jobs?state=ready");
link!(CAMPAIGNS, "Campaigns", "/campaigns");
link!(
    LETTERS,
    "Dead letters: correct, replay or discard",
    "/dead-letters"
);
link!(AUDIT, "What people did", "/audit");
link!(OVERVIEW, "What has changed within the hour", "/");
link!(
    UNKNOWN,
    "Jobs with an unknown outcome",
    "/stuck?code=unknown_outcome"
);

/// Returns what the page of an alert shows.
fn about(alert: &str) -> Option<About> {
    use Source::{
        Database, Ended, Flow, Groups, Holds, Lanes, Letters, Open, Replicas, Scale, Stuck,
    };
    let (sources, actions): (&[Source], &[Link]) = match alert {
        "DispatchWorkerDown" => (&[Replicas, Ended, Open, Scale], &[FLEET, OVERVIEW]),
        "DispatchNotReady" | "DispatchLinkDown" => (&[Replicas, Lanes], &[FLEET, OVERVIEW]),
        "DispatchBacklogOld" => (
            &[Lanes, Scale, Stuck(StuckCode::NotWoken), Holds],
            &[FLEET, READY, CONTROLS],
        ),
        "DispatchParkedGrowing" => (
            &[Flow, Stuck(StuckCode::Parked), Groups],
            &[GROUPS, PARKED, CONTROLS, CAMPAIGNS],
        ),
        "DispatchErrorBudget" => (
            &[Flow, Stuck(StuckCode::Parked), Groups],
            &[GROUPS, CONTROLS, OVERVIEW],
        ),
        "DispatchUnknownOutcome" => (&[Stuck(StuckCode::UnknownOutcome)], &[UNKNOWN, GROUPS]),
        "DispatchStuck" => (
            &[
                Stuck(StuckCode::OwnerDead),
                Stuck(StuckCode::NoProgress),
                Stuck(StuckCode::NotWoken),
                Stuck(StuckCode::NoConsumers),
                Stuck(StuckCode::CrashLoop),
                Lanes,
            ],
            &[STUCK, FLEET],
        ),
        "DispatchTakeovers" => (
            &[Ended, Replicas, Stuck(StuckCode::CrashLoop)],
            &[FLEET, OVERVIEW],
        ),
        "DispatchDutyLate" => (&[Replicas, Database], &[FLEET]),
        "DispatchDeadLetters" => (&[Letters], &[LETTERS, AUDIT, OVERVIEW]),
        "DispatchIntakePaused" => (
            &[Lanes, Letters, Holds],
            &[FLEET, WAITING, CONTROLS, LETTERS],
        ),
        "DispatchHoldLong" => (
            &[Holds, Stuck(StuckCode::Held), Database],
            &[CONTROLS, WAITING],
        ),
        "DispatchPartitionsMissing" => (&[Database, Replicas], &[FLEET]),
        _ => return None,
    };
    Some(About { sources, actions })
}

async fn alert(call: Call) -> Result<Response, Problem> {
    answer::json(&read_alert(&call).await?)
}

/// Reads the alert of the path.
///
/// # Errors
/// `not_found`.
pub(in crate::console) async fn read_alert(call: &Call) -> Result<AlertNow, Problem> {
    let asked: String = call.part("alert")?;
    let alert = ALERTS.iter().find(|alert| alert.name == asked);
    let found = alert.and_then(|alert| Some((alert, about(alert.name)?)));
    let (alert, about) = found.ok_or_else(|| {
        let names: Vec<&str> = ALERTS.iter().map(|alert| alert.name).collect();
        Problem::not_found(format!(
            "expected an alert, got another name; use {}",
            names.join(", ")
        ))
    })?;
    Ok(now(alert, &about, call.panels(), call.reads()).await)
}

async fn now(alert: &Alert, about: &About, panels: &Panels, store: &Store) -> AlertNow {
    let mut numbers = Vec::new();
    for source in about.sources {
        numbers.extend(source.numbers(panels, store).await);
    }
    AlertNow {
        name: alert.name,
        severity: alert.severity,
        summary: alert.summary,
        runbook: alert.runbook,
        numbers,
        actions: about.actions.to_vec(),
    }
}

impl Number {
    fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self {
            name: name.into(),
            value: Some(value.to_string()),
            error: None,
            path: None,
        }
    }

    fn at(self, path: impl Into<String>) -> Self {
        Self {
            path: Some(path.into()),
            ..self
        }
    }

    fn unknown(name: impl Into<String>, error: String) -> Self {
        Self {
            name: name.into(),
            value: None,
            error: Some(error),
            path: None,
        }
    }
}

impl Source {
    /// Reads the numbers. Each source is read alone and fails alone.
    async fn numbers(self, panels: &Panels, store: &Store) -> Vec<Number> {
        let read = match self {
            Self::Open => panels.open(store).await.get().map(|open| {
                let value = format!(
                    "ready {}, running {}, waiting {}, parked {}",
                    open.ready, open.running, open.waiting, open.parked
                );
                vec![Number::new("open jobs", value).at("/jobs")]
            }),
            Self::Stuck(code) => panels.stuck(store).await.get().map(|rows| {
                rows.iter()
                    .filter(|row| row.code == code)
                    .map(stuck)
                    .collect()
            }),
            Self::Lanes => panels
                .lanes(store)
                .await
                .get()
                .map(|found| found.lanes.iter().map(lane).collect()),
            Self::Scale => panels.lanes(store).await.get().map(|found| {
                let number = Number::new("replicas needed", found.scale.desired);
                vec![number.at("/fleet")]
            }),
            Self::Replicas => panels.fleet(store).await.get().map(|rows| replicas(rows)),
            Self::Ended => panels.ended(store).await.get().map(|rows| ended(rows)),
            Self::Letters => panels.letters(store).await.get().map(|letters| {
                let mut codes: Vec<&str> =
                    letters.newest.iter().map(|row| row.code.as_str()).collect();
                codes.sort_unstable();
                codes.dedup();
                vec![
                    Number::new("open dead letters", letters.count),
                    Number::new("codes of the newest", or_none(&codes.join(", "))),
                ]
            }),
            Self::Holds => panels
                .controls(store)
                .await
                .get()
                .map(|list| holds(&list.controls)),
            Self::Groups => panels.groups(store).await.get().map(|rows| groups(rows)),
            Self::Flow => panels
                .charts(store)
                .await
                .get()
                .map(|charts| flow(&charts.points)),
            Self::Database => panels.database(store).await.get().map(|load| {
                vec![
                    Number::new("missing partitions", load.missing_partitions),
                    Number::new(
                        "age of the oldest hold",
                        format!("{:.0} s", load.oldest_hold),
                    ),
                    Number::new(
                        "size of the database",
                        format!("{} MB", load.bytes / 1_000_000),
                    ),
                ]
            }),
        };
        read.unwrap_or_else(|why| vec![Number::unknown(self.name(), why)])
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open jobs",
            Self::Stuck(code) => code.word(),
            Self::Lanes => "lanes",
            Self::Scale => "replicas needed",
            Self::Replicas => "running replicas",
            Self::Ended => "replicas that ended within a day",
            Self::Letters => "open dead letters",
            Self::Holds => "holds",
            Self::Groups => "failure groups",
            Self::Flow => "the last 15 minutes",
            Self::Database => "the database",
        }
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn stuck(row: &crate::store::StuckRow) -> Number {
    let path = format!("/stuck?code={}", row.code.word());
    match (&row.count, &row.error) {
        (Some(count), _) => Number::new(row.code.word(), format!("{count} jobs")),
        (None, why) => Number::unknown(row.code.word(), why.clone().unwrap_or_default()),
    }
    .at(path)
}

fn lane(row: &LaneRow) -> Number {
    let intake = row
        .intake_paused
        .as_deref()
        .map_or_else(String::new, |why| format!("; {why}"));
    let value = format!(
        "oldest due {:.0} s, ready {}, permits {} of {}, consumers {}, queued {}{intake}",
        row.oldest_due_seconds, row.ready, row.permits_used, row.permits, row.consumers, row.queued
    );
    Number::new(format!("lane {}", row.lane), value).at("/fleet")
}

fn replicas(rows: &[FleetReplica]) -> Vec<Number> {
    let running = Number::new("running replicas", rows.len()).at("/fleet");
    let failing = rows.iter().filter(|row| !row.not_ready.is_empty());
    let failing = failing.take(LISTED).map(|row| {
        let name = format!("replica {} on {}", row.row.id, row.row.host);
        Number::new(name, format!("not ready: {}", row.not_ready.join(", "))).at("/fleet")
    });
    std::iter::once(running).chain(failing).collect()
}

fn ended(rows: &[EndedReplica]) -> Vec<Number> {
    let died = rows.iter().filter(|row| is_death(row.how)).count();
    let value = format!("{}, of which {died} died", rows.len());
    vec![Number::new("replicas that ended within a day", value).at("/fleet")]
}

fn holds(rows: &[ControlRow]) -> Vec<Number> {
    let holds: Vec<&ControlRow> = rows
        .iter()
        .filter(|row| row.kind != "kill_switch")
        .collect();
    let count = Number::new("holds and pauses", holds.len()).at("/controls");
    let listed = holds.into_iter().take(LISTED).map(|row| {
        let value = format!("{} jobs wait; by {}: {}", row.waiting, row.who, row.reason);
        Number::new(name_of_scope(&row.scope), value).at("/controls")
    });
    std::iter::once(count).chain(listed).collect()
}

fn groups(rows: &[FailureGroup]) -> Vec<Number> {
    let urgent = urgent(rows);
    if urgent.is_empty() {
        return vec![
            Number::new("failure groups that are new, back or growing", "none").at("/groups"),
        ];
    }
    let listed = urgent.iter().map(|group| {
        let value = format!(
            "{}: {} parked, {} retrying; {} failures this hour, {} before",
            group.status.word(),
            group.parked,
            group.retrying,
            group.trend.last_hour,
            group.trend.hour_before
        );
        Number::new(format!("{} at {}", group.error_code, group.stage), value)
            .at(format!("/groups/{}", group.fingerprint))
    });
    listed.collect()
}

fn flow(points: &[ChartPoint]) -> Vec<Number> {
    let last = &points[points.len().saturating_sub(MINUTES)..];
    let sum = |of: fn(&ChartPoint) -> f64| -> f64 { last.iter().map(of).sum() };
    vec![
        Number::new("parked in 15 min", sum(|point| point.parked)),
        Number::new("done in 15 min", sum(|point| point.done)),
        Number::new(
            "failed attempts in 15 min",
            sum(|point| point.failed_attempts),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::routes::all;

    #[test]
    fn every_alert_has_numbers_and_safe_actions_whose_pages_exist() {
        for alert in ALERTS {
            let about = about(alert.name).unwrap_or_else(|| panic!("{} has no page", alert.name));
            assert!(!about.sources.is_empty() && !about.actions.is_empty());
            for link in about.actions {
                let path = link.path.split('?').next().unwrap();
                let has_page = all().any(|route| route.path == path && route.has_page());
                assert!(has_page, "{}: there is no page {}", alert.name, link.path);
            }
        }
        assert!(about("DispatchNothing").is_none());
    }
}
