//! The page of an alert: what it means, its numbers now, what is safe to do.

use axum::response::Response;
use maud::{Markup, html};

use super::Frame;
use super::runbook::runbook;
use super::words::table;
use crate::console::answer;
use crate::console::api::alerts::{Number, read_alert};
use crate::console::call::Call;
use crate::console::problem::Problem;

/// Answers `/go/{alert}`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let alert = read_alert(&call).await?;
    let class = if alert.severity == "info" {
        "state off"
    } else {
        "state parked"
    };
    let content = html! {
        h1 { (alert.name) " " span class=(class) { (alert.severity) } }
        p.explain { (alert.summary) "." }
        section #now { h2 { "Now" } (numbers(&alert.numbers)) }
        section #actions {
            h2 { "Where to act" }
            ul { @for link in &alert.actions { li { a href=(link.path) { (link.title) } } } }
        }
        section #runbook { (runbook(alert.runbook)) }
    };
    Ok(answer::page(
        Frame::of(&call.who).page(alert.name, &content),
    ))
}

fn numbers(numbers: &[Number]) -> Markup {
    let rows: Vec<Vec<Markup>> = numbers
        .iter()
        .map(|number| {
            vec![
                html! {
                    @match &number.path { Some(path) => a href=(path) { (number.name) }, None => (number.name) }
                },
                html! {
                    @if let Some(value) = &number.value { (value) }
                    @if let Some(error) = &number.error { span.problem { (error) } }
                },
            ]
        })
        .collect();
    table(&["what", "now"], &rows)
}
