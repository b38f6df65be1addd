//! The answer to an unmask: the input and the outputs in full, once. A reload repeats the request,
//! and a repetition shows nothing.

use axum::response::Response;
use maud::{Markup, html};

use super::Frame;
use super::job_actions::obstacle;
use super::job_data::{document, folded};
use super::words::time;
use crate::console::answer;
use crate::console::api::job_data::unmask;
use crate::console::call::{Call, tag};
use crate::console::problem::Problem;
use crate::operations::{JobAction, Unmasked, possible};
use crate::store::{Action, JobRow};

/// The longest input that a form can hold: three bytes for each, in the largest body of a request.
const FORM_BYTES: usize = 80 << 10;

/// Answers `POST /jobs/{id}/unmask`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let seen = call.form.as_ref().and_then(|form| form.etag.clone());
    let row = call.job().await?;
    let Some(data) = unmask(&call).await?.data else {
        return Ok(answer::see_other(&format!("/jobs/{}", row.id)));
    };
    let etag = seen.unwrap_or_else(|| tag(row.generation, row.epoch));
    let may_edit = obstacle(&possible(&row), JobAction::EditInput).is_none()
        && call.who.may(Action::EditInput);
    let frame = Frame::of(&call.who);
    let content = html! {
        h1 { "In full: " (row.source) " " (row.dedupe_key) }
        p.problem { "This page names people. It is recorded that you have seen it, and it is shown once." }
        p { a.button href=(format!("/jobs/{}", row.id)) { "Back to the job" } }
        (shown(&data, &row))
        @if may_edit { (edit(&data, &row, &frame, &etag)) }
    };
    Ok(answer::page(frame.still("In full", &content)))
}

fn shown(data: &Unmasked, row: &JobRow) -> Markup {
    html! {
        h2 { "Input" }
        @match &data.input {
            Some(input) => (document(input)),
            None => p { "It is sealed until a worker that knows its schema has run it." },
        }
        @for one in data.earlier.iter().rev() {
            details {
                summary { "Input " (one.version) ", until " (one.replaced_by) " replaced it " (time(one.replaced_at, row.now)) }
                (document(&one.input))
            }
        }
        h2 { "Outputs" }
        @if data.outputs.is_empty() { p { "No stage is finished yet." } }
        @for done in &data.outputs { (folded(&format!("{}, generation {}", done.stage, done.generation), &done.output)) }
    }
}

/// Returns a form with the whole input; it leads to the page that shows what it would change.
fn edit(data: &Unmasked, row: &JobRow, frame: &Frame<'_>, etag: &str) -> Markup {
    let Some(input) = &data.input else {
        return html! {};
    };
    let text = serde_json::to_string_pretty(input).unwrap_or_default();
    if text.len() > FORM_BYTES {
        return html! { p.hint { "The input is too large for a form; use " code { "dispatch jobs edit" } " instead." } };
    }
    html! {
        h2 #edit { "Edit the input" }
        form method="post" action=(format!("/jobs/{}/input/preview", row.id)) {
            (frame.hidden())
            input type="hidden" name="etag" value=(etag);
            label for="input" { "Input as JSON. Secrets are kept; organization, account, identity and recipients cannot be changed." }
            textarea.document #input name="input" rows="20" required spellcheck="false" { (text) }
            button type="submit" { "Show what it changes" }
        }
    }
}
