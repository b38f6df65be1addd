//! What an edited input would change, and the form that replaces the input by it.

use axum::response::Response;
use maud::html;

use super::Frame;
use super::job_data::changes;
use crate::console::answer;
use crate::console::api::job_data::read_preview;
use crate::console::call::{Call, tag};
use crate::console::problem::Problem;

/// Answers `POST /jobs/{id}/input/preview`.
pub(in crate::console) async fn page(call: Call) -> Result<Response, Problem> {
    let seen = call.form.as_ref().and_then(|form| form.etag.clone());
    let row = call.job().await?;
    let (edited, preview) = read_preview(&call).await?;
    let etag = seen.unwrap_or_else(|| tag(row.generation, row.epoch));
    let frame = Frame::of(&call.who);
    let fields = html! {
        input type="hidden" name="etag" value=(etag);
        input type="hidden" name="input" value=(edited.input);
    };
    let content = html! {
        h1 { "Replace the input" }
        p { a href=(format!("/jobs/{}", row.id)) { (row.source) " " (row.dedupe_key) } " of " (row.organization) }
        p { "The job starts again at its first stage, as a new generation; its open follow-ups are cancelled. The present input is kept." }
        (changes(&preview.changes))
        (frame.form(&format!("/jobs/{}/input", row.id), "Replace the input", &fields))
        p { a.button.plain href=(format!("/jobs/{}", row.id)) { "Back to the job" } }
    };
    Ok(answer::page(frame.still("Replace the input", &content)))
}
