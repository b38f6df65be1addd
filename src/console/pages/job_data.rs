//! The input, the earlier inputs and the outputs of a job, masked and folded.

use maud::{Markup, html};
use serde_json::Value;

use super::words::{table, time};
use crate::console::api::job_data::{EarlierData, JobData};
use crate::console::auth::SignedIn;
use crate::operations::{JobAction, PathChange, possible};
use crate::store::{Action, CheckpointRow, JobRow};

/// How many bytes of a document are shown.
const SHOWN: usize = 64 << 10;

/// Returns the data of a job; earlier inputs with a link to restore them, if the reader may.
pub(super) fn data(data: &JobData, row: &JobRow, who: &SignedIn) -> Markup {
    let is_possible =
        super::job_actions::obstacle(&possible(row), JobAction::RestoreInput).is_none();
    let may_restore = is_possible && who.may(Action::RestoreInput);
    html! {
        p.hint { "What may name a person is masked; equal values look equal." }
        @match &data.input {
            Some(input) => (folded("Input", input)),
            None => p { "The input is sealed until a worker that knows its schema has run it." },
        }
        @for one in data.earlier.iter().rev() { (earlier(one, row, may_restore)) }
        @for done in &data.outputs { (output(done)) }
    }
}

fn earlier(one: &EarlierData, row: &JobRow, may_restore: bool) -> Markup {
    let version = &one.version;
    html! {
        details {
            summary { "Input " (version.version) ", until " (version.replaced_by) " replaced it " (time(version.replaced_at, row.now)) }
            @if may_restore {
                p { a.button href=(format!("/jobs/{}/confirm/restore?version={}", row.id, version.version)) { "Restore input " (version.version) } }
            }
            h3 { "What the edit changed" }
            (changes(&one.changes))
            (document(&version.input))
        }
    }
}

fn output(done: &CheckpointRow) -> Markup {
    folded(
        &format!("Output of {}, generation {}", done.stage, done.generation),
        &done.output,
    )
}

/// Returns a document that is shown when a person opens it.
pub(super) fn folded(title: &str, value: &Value) -> Markup {
    html! { details { summary { (title) } (document(value)) } }
}

/// Returns a document, of a large one the beginning.
pub(super) fn document(value: &Value) -> Markup {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    let shown = text.get(..text.floor_char_boundary(SHOWN)).unwrap_or(&text);
    html! {
        pre.document { (shown) }
        @if shown.len() < text.len() { p.hint { "The first " (SHOWN >> 10) " KiB of " (text.len() >> 10) " KiB." } }
    }
}

/// Returns differences as a table.
pub(super) fn changes(changes: &[PathChange]) -> Markup {
    if changes.is_empty() {
        return html! { p { "Nothing that is shown here." } };
    }
    let value = |value: &Option<Value>| html! { @if let Some(value) = value { code { (value) } } };
    let rows: Vec<Vec<Markup>> = changes
        .iter()
        .map(|one| {
            vec![
                html! { span.mono { (one.path) } },
                value(&one.before),
                value(&one.after),
            ]
        })
        .collect();
    table(&["path", "before", "after"], &rows)
}
