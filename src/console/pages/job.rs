//! One job: why it is not done, and what can be done about it.

use axum::http::header::ETAG;
use axum::response::Response;
use maud::{Markup, html};

use super::Frame;
use super::jobs::rows;
use super::words::{span, state, table, time};
use crate::console::answer;
use crate::console::api::jobs::view;
use crate::console::call::{Call, tag};
use crate::console::problem::Problem;
use crate::job::JobState;
use crate::operations;
use crate::store::{JobRow, JobView};

/// Answers `/jobs/{id}`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let view = view(&call).await?;
    let explained = operations::explain(call.reads(), &view.row).await?;
    let title = format!("{} {}", view.row.source, view.row.dedupe_key);
    let content = html! {
        h1 { (state(view.row.state)) " " (title) }
        p.explain #explain data-part="explain" { (explained.explanation) }
        (actions(&view.row))
        (facts(&view.row))
        section #stages data-part="stages" { h2 { "Stages" } (stages(&view)) }
        section #attempts data-part="attempts" { h2 { "Attempts that failed" } (attempts(&view)) }
        section #effects data-part="effects" { h2 { "Effects" } (effects(&view)) }
        @if !view.children.is_empty() {
            section #follow-ups data-part="follow-ups" { h2 { "Follow-ups" } (rows(&view.children)) }
        }
    };
    let mut response = answer::page(Frame::of(&call.who).page(&title, &content));
    let tag = tag(view.row.generation, view.row.epoch);
    answer::set(&mut response, ETAG, &format!("\"{tag}\""));
    Ok(response)
}

/// Returns links to the actions; each leads to a page that asks for the reason.
fn actions(row: &JobRow) -> Markup {
    let is_done = matches!(row.state, JobState::Succeeded | JobState::Cancelled);
    let waits = row.wait_reason.as_deref() == Some("configuration");
    html! {
        nav.actions aria-label="Actions" {
            @if !is_done {
                a.button href=(format!("/jobs/{}/confirm/retry", row.id)) data-key="r" { "Retry" }
                @if waits { a.button href=(format!("/jobs/{}/confirm/configure", row.id)) { "Choose the account" } }
                a.button href=(format!("/jobs/{}/confirm/cancel", row.id)) { "Cancel" }
            }
        }
    }
}

fn facts(row: &JobRow) -> Markup {
    html! {
        dl.facts {
            dt { "Id" } dd.mono { (row.id) }
            dt { "Organization" } dd { a href=(format!("/jobs?organization={}", row.organization)) { (row.organization) } }
            dt { "Pipeline, stage" } dd { (row.pipeline) ", " (row.stage) }
            dt { "Attempt, generation, epoch" } dd { (row.attempt) ", " (row.generation) ", " (row.epoch) }
            dt { "Accepted" } dd { (time(row.created_at, row.now)) }
            @if let Some(parent) = row.parent { dt { "Follow-up of" } dd { a.mono href=(format!("/jobs/{parent}")) { (parent) } } }
            @if let Some(owner) = row.owner { dt { "Replica" } dd { (owner) } }
            @if let Some(deadline) = row.deadline { dt { "Deadline" } dd { (time(deadline, row.now)) } }
            @if let Some(code) = &row.error_code {
                dt { "Last failure" }
                dd { code { (code) } " " (row.error_message.as_deref().unwrap_or_default()) }
            }
            @if let Some(hint) = &row.error_hint { dt { "What to do" } dd { (hint) } }
        }
    }
}

fn stages(view: &JobView) -> Markup {
    if view.checkpoints.is_empty() {
        return html! { p { "No stage is finished yet." } };
    }
    let rows: Vec<Vec<Markup>> = view
        .checkpoints
        .iter()
        .map(|done| {
            vec![
                html! { (done.stage) },
                html! { (done.generation) },
                html! { (done.attempt) },
                html! { (done.replica) },
                html! { (done.duration_ms) " ms" },
                time(done.finished_at, view.row.now),
            ]
        })
        .collect();
    table(
        &[
            "stage",
            "generation",
            "attempt",
            "replica",
            "took",
            "finished",
        ],
        &rows,
    )
}

fn attempts(view: &JobView) -> Markup {
    if view.attempts.is_empty() {
        return html! { p { "None." } };
    }
    let rows: Vec<Vec<Markup>> = view
        .attempts
        .iter()
        .map(|attempt| {
            vec![
                html! { (attempt.stage) ", attempt " (attempt.attempt) },
                html! { (attempt.outcome) },
                html! { code { (attempt.error_code) } },
                html! { (attempt.message) },
                html! { (span(attempt.duration_ms / 1000)) },
                time(attempt.at, view.row.now),
            ]
        })
        .collect();
    table(
        &["stage", "outcome", "code", "message", "took", "when"],
        &rows,
    )
}

fn effects(view: &JobView) -> Markup {
    if view.effects.is_empty() {
        return html! { p { "None." } };
    }
    let rows: Vec<Vec<Markup>> = view
        .effects
        .iter()
        .map(|effect| {
            vec![
                html! { (effect.stage) },
                html! { (effect.target) },
                html! { (effect.class) },
                html! { (effect.state) @if effect.unknowns > 0 { ", " (effect.unknowns) " possible duplicates" } },
            ]
        })
        .collect();
    table(&["stage", "target", "class", "state"], &rows)
}
