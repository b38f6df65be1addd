//! The overview and the audit log.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::Frame;
use super::charts::charts;
use super::controls::controls;
use super::fleet::{ended, lanes, replicas};
use super::groups::group_rows;
use super::stuck::stuck_rows;
use super::words::{panel, span, table, time};
use crate::console::answer;
use crate::console::api::overview::{Status, read_audit, read_status};
use crate::console::call::Call;
use crate::console::changes::Change;
use crate::console::panels::OpenLetters;
use crate::console::parameters::{address, with};
use crate::console::problem::Problem;
use crate::console::summary::Cause;
use crate::store::{FailureGroup, OpenJobs};

/// Controls on the overview.
const CONTROLS: usize = 10;

/// Answers `/`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let status = Box::pin(read_status(&call)).await?;
    let (frame, now) = (Frame::of(&call.who), status.now);
    let changes = status.changes.value().map_or(&[][..], Vec::as_slice);
    let content = html! {
        h1 { "Overview" }
        p.explain #summary { (cause(status.summary.cause)) " " (status.summary.sentence) }
        section #open { h2 { "Open jobs" } (panel(status.open.get(), |open| open_jobs(open, &status))) (panel(status.dead_letters.get(), letters)) }
        section #lanes { h2 { "Lanes" } (panel(status.lanes.get(), |found| lanes(&found.lanes))) }
        section #stuck { h2 { "What does not move" } (panel(status.stuck_rows(), |rows| stuck_rows(rows, &call.who, now))) }
        section #groups { h2 { "Failures that are new, back or growing" } (panel(status.urgent_groups(), |groups| urgent(groups, &status))) }
        section #charts { h2 { "The last hour" } (panel(status.charts.get(), |found| charts(found, changes))) }
        section #changes { h2 { "What has changed within the hour" } (panel(status.changes.get(), |changes| changed(changes, now))) }
        section #controls { h2 { "Held, paused and killed" } (panel(status.controls.get(), |list| controls(list, CONTROLS, &frame, now))) }
        section #replicas { h2 { "Replicas" } (panel(status.replicas.get(), |rows| replicas(rows, now))) }
        section #ended { h2 { "Ended within a day" } (panel(status.ended.get(), |rows| ended(rows, now))) }
    };
    Ok(answer::page(frame.page("Overview", &content)))
}

/// Returns the answer to the first question as a word with a shape.
fn cause(cause: Cause) -> Markup {
    let (shape, class, word) = match cause {
        Cause::Nothing => ("●", "ok", "in order"),
        Cause::Infrastructure => ("■", "parked", "infrastructure"),
        Cause::Us => ("■", "parked", "ours"),
        Cause::Vendor => ("◔", "waiting", "vendor"),
        Cause::People => ("◔", "waiting", "needs a person"),
    };
    html! { span class=(format!("state {class}")) { span aria-hidden="true" { (shape) } " " (word) } }
}

fn open_jobs(open: &OpenJobs, status: &Status) -> Markup {
    html! {
        p.chips {
            a href="/jobs?state=ready" { "▷ ready " (open.ready) }
            a href="/jobs?state=running" { "▶ running " (open.running) }
            a href="/jobs?state=waiting" { "◔ waiting " (open.waiting) }
            a href="/jobs?state=parked" { "■ parked " (open.parked) }
        }
        @if open.parked.is_zero() { p.hint { "Nothing is parked. " (last_failure(status)) } }
    }
}

fn letters(letters: &OpenLetters) -> Markup {
    html! {
        @if !letters.count.is_zero() {
            p.chips { a href="/dead-letters" { "■ dead letters " (letters.count) } }
        }
    }
}

fn last_failure(status: &Status) -> String {
    status.last_failure.map_or_else(
        || "No failure is on record.".to_owned(),
        |at| {
            let ago = (status.now - at).whole_seconds().max(0);
            format!("The last failure was {} ago.", span(ago))
        },
    )
}

fn urgent(groups: &[FailureGroup], status: &Status) -> Markup {
    if groups.is_empty() {
        return html! { p { "None. " (last_failure(status)) } };
    }
    group_rows(groups, status.now)
}

fn changed(changes: &[Change], now: OffsetDateTime) -> Markup {
    if changes.is_empty() {
        return html! { p { "Nothing." } };
    }
    let rows: Vec<Vec<Markup>> = changes
        .iter()
        .map(|change| {
            vec![
                time(change.at, now),
                html! {
                    @match &change.path { Some(path) => a href=(path) { (change.text) }, None => (change.text) }
                },
            ]
        })
        .collect();
    table(&["when", "what"], &rows)
}

/// Answers `/audit`.
pub(in crate::console) async fn audit(call: Call) -> Result<Response, Problem> {
    let page = read_audit(&call).await?;
    let now = call.reads().now().await?;
    let rows: Vec<Vec<Markup>> = page
        .rows
        .iter()
        .map(|row| {
            vec![
                time(row.at, now),
                html! { (row.who) " (" (row.role) ")" },
                html! { code { (row.action) } },
                html! { @if let Some(job) = row.job_id { a.mono href=(format!("/jobs/{job}")) { (job) } } },
                html! { (row.reason.as_deref().unwrap_or_default()) },
            ]
        })
        .collect();
    let content = html! {
        h1 { "Audit log" }
        (table(&["when", "who", "action", "job", "reason"], &rows))
        p { a href=(address("/api/v1/audit/export", &with(&call.query, &[("before", None), ("limit", None)]))) download="audit.ndjson" { "Export as NDJSON" } }
        @if let Some(next) = &page.next { p { a rel="next" data-key="]" href=(address("/audit", &with(&call.query, &[("before", Some(next))]))) { "Older rows" } } }
    };
    Ok(answer::page(
        Frame::of(&call.who).page("Audit log", &content),
    ))
}
