//! The list of dead letters.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::Frame;
use super::words::{table, time};
use crate::console::answer;
use crate::console::api::dead_letters::{LetterPage, LetterQuery, read_letters};
use crate::console::call::Call;
use crate::console::parameters::{self, with};
use crate::console::problem::Problem;
use crate::escape::Escaped;
use crate::store::DeadLetterRow;

/// Answers `/dead-letters`.
pub(in crate::console) async fn list(call: Call) -> Result<Response, Problem> {
    let query: LetterQuery = call.query()?;
    let listed = read_letters(&call, &query).await?;
    let now = call.reads().now().await?;
    let content = html! {
        h1 { "Dead letters" }
        p.hint { "Messages that could not become jobs." }
        (chips(&query, &call.query))
        @if listed.letters.is_empty() { (nothing(&query, &listed)) } @else { (rows(&listed.letters, now)) }
        @if let Some(next) = &listed.next {
            p { a rel="next" data-key="]" href=(address(&with(&call.query, &[("before", Some(next))]))) { "Older letters" } }
        }
    };
    Ok(answer::page(
        Frame::of(&call.who).page("Dead letters", &content),
    ))
}

/// Returns which letters are shown as links, and the filters.
fn chips(query: &LetterQuery, asked: &str) -> Markup {
    let link = |all: bool| with(asked, &[("before", None), ("all", all.then_some("true"))]);
    html! {
        p.chips {
            @for (all, name) in [(false, "open"), (true, "all")] {
                a href=(address(&link(all))) aria-current=[(query.all == all).then_some("true")] { (name) }
            }
            @for (name, value) in [("code", &query.code), ("source", &query.source)] {
                @if let Some(value) = value { span.chip { (name) ": " (Escaped(value)) } }
            }
            @if query.code.is_some() || query.source.is_some() { a href="/dead-letters" { "remove the filter" } }
        }
    }
}

fn address(query: &str) -> String {
    parameters::address("/dead-letters", query)
}

fn nothing(query: &LetterQuery, listed: &LetterPage) -> Markup {
    html! {
        @if let Some(looked) = listed.looked {
            p { "Looked at " (looked) " letters; none match. Older letters were not looked at." }
        } @else if query.code.is_some() || query.source.is_some() || query.before.is_some() {
            p { "No dead letter matches." }
        } @else {
            p { "No dead letter is open." }
        }
    }
}

fn rows(letters: &[DeadLetterRow], now: OffsetDateTime) -> Markup {
    let rows: Vec<Vec<Markup>> = letters.iter().map(|row| cells(row, now)).collect();
    table(
        &[
            "letter",
            "code",
            "what was expected and what came",
            "source and key",
            "bytes",
            "received",
            "state",
        ],
        &rows,
    )
}

fn cells(row: &DeadLetterRow, now: OffsetDateTime) -> Vec<Markup> {
    let text = |text: &Option<String>| Escaped(text.as_deref().unwrap_or_default()).to_string();
    let of = |name, value: &str| address(&with("", &[(name, Some(value))]));
    vec![
        html! { a href=(format!("/dead-letters/{}", row.id)) { (row.id) } },
        html! { a href=(of("code", &row.code)) { code { (row.code) } } },
        html! { (Escaped(&row.detail)) },
        html! {
            @if let Some(source) = &row.source { a href=(of("source", source)) { (text(&row.source)) } " " }
            span.mono { (text(&row.dedupe_key)) }
        },
        html! { (row.body_bytes) },
        time(row.created_at, now),
        state(row),
    ]
}

/// Returns what has become of a letter.
pub(super) fn state(row: &DeadLetterRow) -> Markup {
    let (class, shape, word) = match (row.resolution.as_deref(), row.replay_wanted_at) {
        (Some(how), _) => ("off", "○", how),
        (None, _) if row.resolved_at.is_some() => ("off", "○", "resolved"),
        (None, Some(_)) if row.replay_error.is_some() => ("parked", "■", "replay fails"),
        (None, Some(_)) => ("waiting", "◔", "to be replayed"),
        (None, None) => ("parked", "■", "open"),
    };
    html! { span class=(format!("state {class}")) { span aria-hidden="true" { (shape) } " " (word) } }
}
