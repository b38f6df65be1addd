//! The overview, what is stuck, and the audit log.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::Frame;
use super::controls::controls;
use super::words::{table, time};
use crate::console::answer;
use crate::console::api::overview::{Status, read_audit, read_status, read_stuck};
use crate::console::call::Call;
use crate::console::problem::Problem;
use crate::store::{ReplicaRow, StuckRow};

/// Answers `/`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let status = read_status(&call).await?;
    let frame = Frame::of(&call.who);
    let content = html! {
        h1 { "Overview" }
        p.explain #summary { (summary(&status)) }
        section #open {
            h2 { "Open jobs" }
            p.chips {
                a href="/jobs?state=ready" { "▷ ready " (status.open.ready) }
                a href="/jobs?state=running" { "▶ running " (status.open.running) }
                a href="/jobs?state=waiting" { "◔ waiting " (status.open.waiting) }
                a href="/jobs?state=parked" { "■ parked " (status.open.parked) }
            }
            @if !status.dead_letters.is_zero() {
                p.chips { a href="/dead-letters" { "■ dead letters " (status.dead_letters) } }
            }
        }
        section #stuck { h2 { "What does not move" } (stuck_rows(&status.stuck, status.now)) }
        section #controls { h2 { "Held, paused and killed" } (controls(&status.controls, &frame, status.now)) }
        section #replicas { h2 { "Replicas" } (replicas(&status.replicas)) }
    };
    Ok(answer::page(frame.page("Overview", &content)))
}

fn summary(status: &Status) -> String {
    let paused = status
        .controls
        .iter()
        .find(|control| control.kind == "pause");
    if let Some(pause) = paused {
        return format!("Everything is paused by {}: {}.", pause.who, pause.reason);
    }
    if status.replicas.is_empty() {
        return "No worker runs. Accepted jobs are safe; nothing moves until one starts."
            .to_owned();
    }
    match status.stuck.as_slice() {
        [] => "Everything moves.".to_owned(),
        [only] => match only.count {
            Some(count) => format!("{} ({}): {}", only.code.word(), count, only.sentence),
            None => only.sentence.to_owned(),
        },
        several => format!(
            "{} kinds of jobs do not move; they are listed below.",
            several.len()
        ),
    }
}

/// Answers `/stuck`.
pub(in crate::console) async fn stuck(call: Call) -> Result<Response, Problem> {
    let rows = read_stuck(&call).await?;
    let now = call.reads().now().await?;
    let content = html! {
        h1 { "What does not move" }
        (stuck_rows(&rows, now))
    };
    Ok(answer::page(Frame::of(&call.who).page("Stuck", &content)))
}

fn stuck_rows(rows: &[StuckRow], now: OffsetDateTime) -> Markup {
    if rows.is_empty() {
        return html! { p { "Nothing is stuck." } };
    }
    let cells: Vec<Vec<Markup>> = rows.iter().map(|row| stuck_row(row, now)).collect();
    table(
        &[
            "code",
            "jobs",
            "oldest",
            "what it means",
            "examples",
            "what to do",
        ],
        &cells,
    )
}

fn stuck_row(row: &StuckRow, now: OffsetDateTime) -> Vec<Markup> {
    vec![
        html! { a href=(format!("/stuck?code={}", row.code.word())) { code { (row.code.word()) } } },
        html! {
            @if let Some(count) = row.count { (count) }
            @if let Some(error) = &row.error { "not counted: " (error) }
        },
        html! { @if let Some(oldest) = row.oldest { (time(oldest, now)) } },
        html! { (row.sentence) " " span.hint { "Counted: " (row.predicate) } },
        html! {
            @for example in &row.examples {
                a.mono href=(format!("/jobs/{}", example.id)) { (example.organization) } " "
            }
        },
        html! { (row.next) },
    ]
}

fn replicas(replicas: &[ReplicaRow]) -> Markup {
    if replicas.is_empty() {
        return html! { p { "None." } };
    }
    let rows: Vec<Vec<Markup>> = replicas
        .iter()
        .map(|replica| {
            vec![
                html! { (replica.id) },
                html! { (replica.version) },
                html! { (replica.host) },
                html! { (replica.running) },
                html! { @if replica.draining { "drains" } @else { "runs" } },
            ]
        })
        .collect();
    table(&["replica", "version", "host", "jobs", "state"], &rows)
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
        @if let Some(next) = page.next { p { a rel="next" data-key="]" href=(format!("/audit?before={next}")) { "Older rows" } } }
    };
    Ok(answer::page(
        Frame::of(&call.who).page("Audit log", &content),
    ))
}
