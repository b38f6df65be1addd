//! What is held, paused and killed, with the buttons that end it.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::Frame;
use super::words::{table, time};
use crate::console::answer;
use crate::console::api::controls::{ControlQuery, read};
use crate::console::call::Call;
use crate::console::problem::Problem;
use crate::store::{Action, ControlList, ControlRow};

/// Answers `/controls`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let query: ControlQuery = call.query()?;
    let list = read(&call).await?;
    let now = call.reads().now().await?;
    let frame = Frame::of(&call.who);
    let content = html! {
        h1 { "Held, paused and killed" }
        (controls(&list, usize::MAX, &frame, now))
        form.filter method="get" action="/controls" {
            label for="beginning" { "Scope begins with" }
            input #beginning name="scope" value=(query.scope) autocomplete="off";
            button { "Show" }
        }
        h2 { "Hold" }
        (frame.form("/controls/hold", "Hold", &html! {
            label for="scope" { "Scope: lane:…, stage:PIPELINE/STAGE, organization:…, provider:…, or a destination" }
            input #scope name="scope" required autocomplete="off";
            label for="minutes" { "Minutes" }
            input #minutes name="minutes" type="number" min="1" max="10080" value="60" required;
        }))
        @if call.who.may(Action::PlaceKillSwitch) {
            h2 { "Kill switch" }
            p { a.button href="/controls/kill-switch" { "Conditions and a dry run" } }
        }
        h2 { "Pause everything" }
        (frame.form("/controls/pause", "Pause", &html! {
            label for="pause-minutes" { "Minutes" }
            input #pause-minutes name="minutes" type="number" min="1" max="10080" value="60" required;
        }))
    };
    Ok(answer::page(frame.page("Controls", &content)))
}

/// Returns the first controls as a table.
pub(super) fn controls(
    list: &ControlList,
    most: usize,
    frame: &Frame<'_>,
    now: OffsetDateTime,
) -> Markup {
    if list.controls.is_empty() {
        return html! { p { "Nothing is held." } };
    }
    let rows = list.controls.iter().take(most);
    let cells: Vec<Vec<Markup>> = rows.map(|row| cells(row, frame, now)).collect();
    let heads = ["kind", "scope", "reason", "who", "ends", "jobs wait", ""];
    let is_part = i64::try_from(cells.len()).is_ok_and(|shown| shown < list.count.at_least());
    html! {
        (table(&heads, &cells))
        @if is_part {
            p.hint {
                "These are " (cells.len()) " of " (list.count) ": pauses and kill switches, then what people have placed, then what lasts longest. "
                a href="/controls" { "Find others by their scope" }
            }
        }
    }
}

fn cells(row: &ControlRow, frame: &Frame<'_>, now: OffsetDateTime) -> Vec<Markup> {
    let scope = html! { input type="hidden" name="scope" value=(row.scope); };
    let none = html! {};
    let end = match row.kind.as_str() {
        "pause" => frame.form("/controls/resume", "Resume", &none),
        "kill_switch" => frame.form(&format!("/controls/{}/end", row.id), "End", &none),
        _ => frame.form("/controls/release", "Release", &scope),
    };
    vec![
        html! { (row.kind) },
        html! {
            span.mono { (row.scope) }
            @if let Some(matcher) = &row.matcher { " " code { (matcher) } }
            @if !row.is_understood { " This version does not understand it, so it stops no job." }
        },
        html! { (row.reason) },
        html! { (row.who) },
        time(row.expires_at, now),
        html! { (row.waiting) },
        end,
    ]
}
