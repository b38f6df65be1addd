//! The pages, a file for each. A page is rendered from what the API answers, works without script,
//! and shows stored text as text only.

pub(super) mod alert;
pub(super) mod campaigns;
mod charts;
mod confirm;
pub(super) mod controls;
pub(super) mod dead_letter;
pub(super) mod dead_letters;
pub(super) mod edit;
mod effects;
pub(super) mod fleet;
mod frame;
pub(super) mod groups;
pub(super) mod job;
mod job_actions;
mod job_data;
pub(super) mod jobs;
mod json_tree;
pub(super) mod kill_switch;
pub(super) mod overview;
mod runbook;
pub(super) mod stuck;
pub(super) mod unmask;
mod waterfall;
pub(super) mod words;

use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::answer;
use super::auth::SignedIn;
use super::problem::Problem;
use super::routes::Route;

use words::table;

pub(super) use frame::{Frame, bare};
pub(super) use words::exact_time;

/// The files that pages refer to: path, media type, text.
pub(super) const FILES: [(&str, &str, &str); 3] = [
    (
        "/assets/console.css",
        "text/css; charset=utf-8",
        include_str!("../assets/console.css"),
    ),
    (
        "/assets/console.js",
        "text/javascript; charset=utf-8",
        include_str!("../assets/console.js"),
    ),
    (
        "/assets/icon.svg",
        "image/svg+xml",
        include_str!("../assets/icon.svg"),
    ),
];

pub(super) const ROUTES: &[Route] = &[confirm::ROUTE];

/// Shows a problem.
pub(super) fn problem(problem: &Problem, who: Option<&SignedIn>) -> Response {
    let text = text_of(problem);
    let page = match who {
        Some(who) => Frame::of(who).still(problem.title, &text),
        None => bare(problem.title, &text),
    };
    let mut response = answer::page(page);
    answer::finish_problem(&mut response, problem);
    response
}

fn text_of(problem: &Problem) -> Markup {
    html! {
        h1 { (problem.title) }
        p.problem role="alert" { (problem.detail) "." }
        p { (problem.hint) }
        @if let Some(now) = problem.now.as_ref().filter(|now| now.is_object()) { (moved_on(now)) }
        p.hint {
            code { (problem.code) }
            @if let Some(id) = problem.request_id { ", request " code { (id) } }
        }
    }
}

/// Shows what has happened to a job since a person looked at it.
fn moved_on(now: &Value) -> Markup {
    let text = |field: &str| now[field].as_str().unwrap_or_default();
    let actions: Vec<Vec<Markup>> = now["last_actions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let cell = |field: &str| html! { (one[field].as_str().unwrap_or_default()) };
            vec![cell("at"), cell("who"), cell("action"), cell("reason")]
        })
        .collect();
    html! {
        p { "Now it is " b { (text("state")) } " at " (text("stage")) "." }
        p.explain { (text("explanation")) }
        @if !actions.is_empty() {
            h2 { "What people did last" }
            (table(&["when", "who", "action", "reason"], &actions))
        }
        p { a.button href=(format!("/jobs/{}", text("job"))) { "Look at the job" } }
    }
}
