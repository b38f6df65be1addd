//! One dead letter: what was refused and why, whether it would be accepted now, and what can be
//! done with it.

use axum::response::Response;
use maud::{Markup, html};
use time::OffsetDateTime;

use super::Frame;
use super::dead_letters::state;
use super::json_tree::tree;
use super::words::{table, time};
use crate::console::answer;
use crate::console::api::dead_letters::{
    BodyForm, Fix, Fixed, LetterView, UnmaskedLetter, fix as fix_letter, read_letter,
    unmask as unmask_letter,
};
use crate::console::call::Call;
use crate::console::problem::Problem;
use crate::escape::Escaped;
use crate::operations::Acceptance;
use crate::store::Action;

/// The longest body that a form is filled with, in bytes: with escapes, a form of the console may
/// be four times as long.
const IN_FORM: usize = 64 << 10;

/// Answers `/dead-letters/{number}`.
pub(in crate::console) async fn show(call: Call) -> Result<Response, Problem> {
    let view = read_letter(&call).await?;
    let now = call.reads().now().await?;
    let frame = Frame::of(&call.who);
    let content = html! {
        h1 { (state(&view.row)) " Dead letter " (view.row.id) ": " code { (view.row.code) } }
        p.explain { (Escaped(&view.row.detail)) }
        (verdict(&view))
        (facts(&view, now))
        @if view.row.resolved_at.is_none() { (actions(&call, &frame, &view)) }
        h2 { "Body" }
        (body(&view))
        @if may(&call, Action::ShowRawDeadLetter) && ![BodyForm::None, BodyForm::Sealed].contains(&view.form) {
            h3 { "As it was received" }
            p.hint { "Body and headers may contain secrets and personal data. The audit log records who looks at them." }
            (frame.form(&format!("/dead-letters/{}/unmask", view.row.id), "Unmask", &html! {}))
        }
    };
    let title = format!("Dead letter {}", view.row.id);
    Ok(answer::page(frame.page(&title, &content)))
}

fn may(call: &Call, action: Action) -> bool {
    call.who.may(action)
}

fn verdict(view: &LetterView) -> Markup {
    let Some(acceptance) = &view.acceptance else {
        return html! {};
    };
    let Acceptance {
        accepted,
        code,
        detail,
        only_if,
        job,
        ..
    } = acceptance;
    html! {
        p #acceptance {
            @if *accepted {
                span.state.ok { span aria-hidden="true" { "●" } " would be accepted now" }
                @if let Some(only_if) = only_if { ", if " (Escaped(only_if)) }
                @if let Some(job) = job { ": it is already the job " a.mono href=(format!("/jobs/{job}")) { (job) } ", which a replay does not change" }
                ". Quotas are not checked."
            } @else {
                span.state.parked { span aria-hidden="true" { "■" } " would be refused now" }
                @if let (Some(code), Some(detail)) = (code, detail) { ": " code { (code) } ", " (Escaped(detail)) }
            }
        }
    }
}

fn facts(view: &LetterView, now: OffsetDateTime) -> Markup {
    let row = &view.row;
    let texts = [
        ("Source", &row.source),
        ("Dedupe key", &row.dedupe_key),
        ("Message id", &row.message_id),
        ("Published by", &row.producer),
        ("Content type", &view.content_type),
        ("Content encoding", &view.content_encoding),
    ];
    html! {
        dl.facts {
            dt { "Received" } dd { (time(row.created_at, now)) }
            dt { "Routing key" } dd.mono { (Escaped(&row.routing_key)) }
            @for (name, text) in texts {
                @if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) { dt { (name) } dd { (Escaped(text)) } }
            }
            dt { "Size" } dd { (row.body_bytes) " bytes" }
            dt { "SHA-256" } dd.mono { (view.body_sha256) }
            dt { "Headers" } dd.mono { (Escaped(&view.headers.to_string())) }
            @if let (Some(at), Some(by)) = (row.fixed_at, &row.fixed_by) {
                dt { "Body corrected" } dd { (time(at, now)) " by " (Escaped(by)) }
            }
            @if let (Some(at), Some(by)) = (row.replay_wanted_at, &row.replay_wanted_by) {
                dt { "Replay wanted" } dd { (time(at, now)) " by " (Escaped(by)) "; a worker publishes it" }
            }
            @if let Some(error) = &row.replay_error { dt { "Last replay failed" } dd { (Escaped(error)) } }
            @if let Some(at) = row.resolved_at {
                dt { (row.resolution.as_deref().unwrap_or("resolved")) }
                dd {
                    (time(at, now))
                    @if let Some(by) = &row.resolved_by { " by " (Escaped(by)) }
                    @if let Some(why) = &row.resolved_reason { ": " (Escaped(why)) }
                }
            }
        }
    }
}

fn actions(call: &Call, frame: &Frame<'_>, view: &LetterView) -> Markup {
    let path = |verb: &str| format!("/dead-letters/{}/{verb}", view.row.id);
    let none = html! {};
    html! {
        h2 { "Actions" }
        @if let Some(why) = &view.replay_obstacle { p { "It cannot be replayed: " (Escaped(why)) "." } }
        @else if view.row.replay_wanted_at.is_none() && may(call, Action::ReplayDeadLetter) {
            h3 { "Replay" }
            p.hint { "A worker publishes the message again as it was received. If it is refused again, it becomes a new dead letter." }
            (frame.form(&path("replay"), "Replay", &none))
        }
        @if view.form != BodyForm::Sealed && may(call, Action::FixDeadLetter) { (correction(frame, &path("fix"), "")) }
        @if may(call, Action::DiscardDeadLetter) {
            h3 { "Discard" }
            p.hint { "The letter can no longer be replayed, and is deleted later." }
            (frame.form(&path("discard"), "Discard", &none))
        }
    }
}

/// Returns the form of a corrected body, which leads to a preview.
fn correction(frame: &Frame<'_>, action: &str, text: &str) -> Markup {
    html! {
        h3 { "Correct and replay" }
        p.hint { "The body as JSON, with the source and the organization of the original. The next page shows what would change." }
        (frame.form(action, "Preview", &html! {
            input type="hidden" name="dry_run" value="true";
            label for="body" { "Body" }
            textarea #body name="body" rows="12" required spellcheck="false" { (text) }
        }))
    }
}

fn body(view: &LetterView) -> Markup {
    html! {
        @if let Some(path) = &view.at_fault { p { "At fault: " code { (Escaped(path)) } } }
        @match (&view.body, view.form) {
            (Some(body), _) => {
                p.hint { "Shown are ids, codes, times and numbers. Equal values have equal marks, such as person·7f3a." }
                (tree(body, view.at_fault.as_deref()))
            }
            (None, BodyForm::None) => p { "It was not stored, because the dead letters of its producer were over quota." },
            (None, BodyForm::Sealed) => p.problem { "It cannot be opened: " (view.sealed.as_deref().unwrap_or_default()) ". Then start the console and the workers again." },
            (None, BodyForm::Bytes) => p { "It is not UTF-8." },
            (None, _) => p { "It is text that is not JSON." },
        }
    }
}

/// Answers `POST /dead-letters/{number}/unmask`: the body is on this page only.
pub(in crate::console) async fn unmask(call: Call) -> Result<Response, Problem> {
    let UnmaskedLetter {
        body,
        is_utf8,
        headers,
    } = unmask_letter(&call).await?;
    let frame = Frame::of(&call.who);
    let letter = format!("/dead-letters/{}", call.path["number"]);
    let content = html! {
        h1 { "Dead letter " (call.path["number"]) " as it was received" }
        p { a.button href=(letter) { "Back" } }
        @if !is_utf8 { p { "The body is not UTF-8; other bytes are shown as U+FFFD." } }
        h2 { "Body" }
        pre.json { (harmless(&body)) }
        h2 { "Headers" }
        pre.json { (harmless(&headers.to_string())) }
        @if is_utf8 && body.len() <= IN_FORM && may(&call, Action::FixDeadLetter) {
            (correction(&frame, &format!("{letter}/fix"), &body))
        }
    };
    Ok(answer::page(frame.still("Dead letter, unmasked", &content)))
}

/// Returns a text whose line ends stay and whose other acting characters are shown.
fn harmless(text: &str) -> String {
    let lines: Vec<String> = text
        .split('\n')
        .map(|line| Escaped(line.trim_end_matches('\r')).to_string())
        .collect();
    lines.join("\n")
}

/// Answers `POST /dead-letters/{number}/fix`: a preview with the form that confirms it, or the
/// letter after the change.
pub(in crate::console) async fn fix(call: Call) -> Result<Response, Problem> {
    let asked: Fix = call.input()?;
    let fixed = fix_letter(&call, &asked).await?;
    let letter = format!("/dead-letters/{}", call.path["number"]);
    if !asked.dry_run {
        return Ok(answer::see_other(&letter));
    }
    let frame = Frame::of(&call.who);
    let content = html! {
        h1 { "Correct dead letter " (call.path["number"]) }
        (differences(&fixed))
        (frame.form(&format!("{letter}/fix"), "Correct and replay", &html! {
            input type="hidden" name="body" value=(asked.body);
        }))
        p { a.button.plain href=(letter) { "Back" } }
    };
    Ok(answer::page(frame.still("Correct a dead letter", &content)))
}

fn differences(fixed: &Fixed) -> Markup {
    let value = |value: &Option<serde_json::Value>| {
        let text = value.as_ref().map(ToString::to_string);
        html! { code { (Escaped(text.as_deref().unwrap_or("-"))) } }
    };
    let rows: Vec<Vec<Markup>> = fixed
        .diff
        .iter()
        .map(|change| {
            vec![
                html! { code { (Escaped(&change.path)) } },
                value(&change.before),
                value(&change.after),
            ]
        })
        .collect();
    html! {
        @if fixed.original_is_readable == Some(false) { p { "The original cannot be read; these are all fields of the correction." } }
        @if rows.is_empty() { p { "The body stays as it is; its content type becomes application/json." } }
        @else { (table(&["field", "before", "after"], &rows)) }
    }
}
