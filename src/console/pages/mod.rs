//! The pages, a file for each. A page is rendered from what the API answers, works without script,
//! and shows stored text as text only.

pub(super) mod campaigns;
mod confirm;
pub(super) mod controls;
pub(super) mod dead_letter;
pub(super) mod dead_letters;
mod frame;
pub(super) mod groups;
pub(super) mod job;
pub(super) mod jobs;
mod json_tree;
pub(super) mod overview;
mod words;

use axum::response::Response;
use maud::{Markup, html};

use super::answer;
use super::auth::SignedIn;
use super::problem::Problem;
use super::routes::Route;

pub(super) use frame::{Frame, bare};

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
        Some(who) => Frame::of(who).page(problem.title, &text),
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
        @if let Some(now) = problem.now.as_ref().filter(|now| now.is_object()) {
            p { "Now: " code { (now) } }
        }
        p.hint {
            code { (problem.code) }
            @if let Some(id) = problem.request_id { ", request " code { (id) } }
        }
    }
}
