//! A kill switch before it is placed: its conditions, and what it would stop.

use axum::response::Response;
use maud::{Markup, html};

use super::Frame;
use super::words::{state, table};
use crate::console::answer;
use crate::console::api::kill_switch::{Conditions, read_preview};
use crate::console::call::Call;
use crate::console::problem::Problem;
use crate::store::{KillAction, KillPreview};

const PATH: &str = "/controls/kill-switch";

/// Answers `/controls/kill-switch`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let asked = call.query::<Conditions>()?.given();
    let frame = Frame::of(&call.who);
    let found = if asked.is_empty() {
        None
    } else {
        Some(read_preview(&call, asked.clone()).await?)
    };
    let content = html! {
        h1 { "Kill switch" }
        p { "Jobs for which every condition holds are parked or cancelled before their next stage, for a time." }
        form method="get" action=(PATH) {
            (fields(&asked))
            button type="submit" { "Dry run: what would it stop?" }
        }
        @if let Some(found) = &found {
            h2 { "It would stop" }
            (stopped(found))
            h2 { "Place it" }
            (frame.form(PATH, "Place the kill switch", &placing(&asked)))
        }
    };
    Ok(answer::page(frame.still("Kill switch", &content)))
}

fn named(asked: &Conditions) -> [(&'static str, &'static str, Option<&str>); 4] {
    [
        (
            "organization",
            "Organization",
            asked.organization.as_deref(),
        ),
        ("source", "Source", asked.source.as_deref()),
        ("account", "Account", asked.account.as_deref()),
        ("pipeline", "Pipeline", asked.pipeline.as_deref()),
    ]
}

fn fields(asked: &Conditions) -> Markup {
    let action = asked.action.unwrap_or(KillAction::Park);
    html! {
        @for (name, title, value) in named(asked) {
            label for=(name) { (title) }
            input id=(name) name=(name) value=(value.unwrap_or_default()) autocomplete="off";
        }
        label for="payload" { "Payload, a PATH=VALUE on each line, such as search.project=web" }
        textarea #payload name="payload" rows="2" { (asked.payload.as_deref().unwrap_or_default()) }
        label for="action" { "What becomes of the jobs" }
        p { select #action name="action" {
            @for one in [KillAction::Park, KillAction::Cancel] {
                option value=(one.word()) selected[one == action] { (one.word()) }
            }
        } }
    }
}

fn stopped(found: &KillPreview) -> Markup {
    let of = |is_complete: bool| {
        if is_complete {
            ""
        } else {
            " among those looked at"
        }
    };
    let rows: Vec<Vec<Markup>> = found
        .sample
        .iter()
        .map(|job| {
            vec![
                html! { a.mono href=(format!("/jobs/{}", job.id)) { (job.id) } },
                html! { (job.organization) },
                html! { (job.source) },
                state(job.state),
            ]
        })
        .collect();
    html! {
        p.explain {
            (found.open) " open jobs" (of(found.open_is_complete)) "; " (found.intake_of_last_hour) " of the last hour's intake" (of(found.intake_is_complete)) "."
        }
        @if !rows.is_empty() { (table(&["job", "organization", "source", "state"], &rows)) }
    }
}

/// Returns the conditions as hidden fields, and for how long.
fn placing(asked: &Conditions) -> Markup {
    let action = asked.action.unwrap_or(KillAction::Park);
    html! {
        @for (name, _, value) in named(asked) {
            @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
        }
        @if let Some(payload) = &asked.payload { input type="hidden" name="payload" value=(payload); }
        input type="hidden" name="action" value=(action.word());
        label for="minutes" { "Minutes" }
        input #minutes name="minutes" type="number" min="1" max="10080" value="60" required;
    }
}
