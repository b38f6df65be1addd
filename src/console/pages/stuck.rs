//! What does not move, why, and what to press.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::Frame;
use super::words::{table, time};
use crate::console::answer;
use crate::console::api::overview::read_stuck;
use crate::console::auth::SignedIn;
use crate::console::call::Call;
use crate::console::problem::Problem;
use crate::store::{Action, StuckCode, StuckRow};

/// Answers `/stuck`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let rows = read_stuck(&call).await?;
    let now = call.reads().now().await?;
    let content = html! {
        h1 { "What does not move" }
        (stuck_rows(&rows, &call.who, now))
    };
    Ok(answer::page(Frame::of(&call.who).page("Stuck", &content)))
}

/// Returns the codes as a table, with what a person may do.
pub(super) fn stuck_rows(rows: &[StuckRow], who: &SignedIn, now: OffsetDateTime) -> Markup {
    if rows.is_empty() {
        return html! { p { "Nothing is stuck." } };
    }
    let cells: Vec<Vec<Markup>> = rows.iter().map(|row| cells(row, who, now)).collect();
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

fn cells(row: &StuckRow, who: &SignedIn, now: OffsetDateTime) -> Vec<Markup> {
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
        html! {
            (commands(row))
            @if let Some((path, title)) = remedy(row, who) { " " a.button href=(path) { (title) } }
        },
    ]
}

/// Returns the commands, for the job that has stood longest if there is one.
fn commands(row: &StuckRow) -> String {
    match row.examples.first() {
        Some(oldest) => row.next.replace(" ID", &format!(" {}", oldest.id)),
        None => row.next.to_owned(),
    }
}

/// Returns the page where the next action begins for the job that has stood longest, if there is
/// one that the person may use.
fn remedy(row: &StuckRow, who: &SignedIn) -> Option<(String, &'static str)> {
    let first = row.examples.first()?;
    let oldest = first.id;
    let waits_for = |cause: &str| {
        let detail = first.detail.as_deref();
        detail.is_some_and(|detail| detail.starts_with(cause))
    };
    let confirm = |word: &str, action| {
        who.may(action)
            .then(|| format!("/jobs/{oldest}/confirm/{word}"))
    };
    let (path, title) = match row.code {
        StuckCode::RetryingLong | StuckCode::Parked | StuckCode::CrashLoop => {
            (confirm("retry", Action::Retry), "Retry the oldest")
        }
        StuckCode::NoProgress => (confirm("park", Action::Park), "Park the oldest"),
        // An account that is disabled is enabled on the command line only.
        StuckCode::WaitingConfiguration if !waits_for("configuration") => (None, ""),
        StuckCode::WaitingConfiguration => (
            confirm("configure", Action::Configure),
            "Choose the account of the oldest",
        ),
        StuckCode::UnknownOutcome => (
            Some(format!("/jobs/{oldest}#effects")),
            "Effects of the oldest",
        ),
        // Tokens are set on the command line only.
        StuckCode::WaitingReauthentication => (None, ""),
        StuckCode::Held => (Some("/controls".to_owned()), "Holds"),
        StuckCode::OwnerDead
        | StuckCode::WaitingVersion
        | StuckCode::NotWoken
        | StuckCode::NoConsumers => (Some("/fleet".to_owned()), "Fleet"),
    };
    Some((path?, title))
}
