//! The page before an action on a job: what it does, for which job, and why. Its form has the
//! version of the job that the person saw, and a key, so that a second click changes nothing.

use axum::http::Method;
use axum::response::Response;
use maud::{Markup, html};
use uuid::Uuid;

use super::Frame;
use super::words::state;
use crate::console::answer;
use crate::console::call::{Call, tag};
use crate::console::problem::Problem;
use crate::console::routes::{Access, JSON, Route, handler, schema};
use crate::operations;
use crate::store::{JobRow, Role};

pub(super) const ROUTE: Route = Route {
    name: "confirm",
    method: Method::GET,
    path: "/jobs/{id}/confirm/{action}",
    about: "Asks for the reason of an action on a job",
    access: Access::From {
        role: Role::Operator,
        is_scoped: true,
    },
    action: None,
    parameters: &[],
    input: None,
    output: schema::<()>,
    media_type: JSON,
    api: None,
    page: Some(handler!(page)),
};

/// An action on a job, as its page asks.
struct Asked {
    /// The last part of the path.
    action: &'static str,
    title: &'static str,
    /// What it does.
    about: &'static str,
    /// Further fields of the form.
    fields: fn() -> Markup,
}

const NO_FIELDS: fn() -> Markup = || html! {};

const ASKED: &[Asked] = &[
    Asked {
        action: "retry",
        title: "Retry",
        about: "The job is due now, with all its attempts, and continues at the stage where it stopped. If the outcome of an \
                effect is unknown, it may happen twice.",
        fields: NO_FIELDS,
    },
    Asked {
        action: "cancel",
        title: "Cancel",
        about: "The job ends, and so do its open follow-ups. What it has done stays done.",
        fields: NO_FIELDS,
    },
    Asked {
        action: "configure",
        title: "Choose the account",
        about: "The job starts again at its first stage, with this account.",
        fields: || {
            html! {
                label for="account" { "Id of the account" }
                input #account name="account" required autocomplete="off" spellcheck="false";
            }
        },
    },
];

async fn page(call: Call) -> Result<Response, Problem> {
    let action: String = call.part("action")?;
    let asked = ASKED.iter().find(|asked| asked.action == action);
    let asked =
        asked.ok_or_else(|| Problem::not_found(format!("there is no action `{action}`")))?;
    let row = call.job().await?;
    let explained = operations::explain(call.reads(), &row).await?;
    let frame = Frame::of(&call.who);
    let content = html! {
        h1 { (asked.title) }
        p { (state(row.state)) " " a href=(format!("/jobs/{}", row.id)) { (row.source) " " (row.dedupe_key) } " of " (row.organization) }
        p.explain { (explained.explanation) }
        (form(asked, &row, frame.form_token()))
    };
    Ok(answer::page(frame.page(asked.title, &content)))
}

fn form(asked: &Asked, row: &JobRow, form_token: &str) -> Markup {
    html! {
        form method="post" action=(format!("/jobs/{}/{}", row.id, asked.action)) {
            input type="hidden" name="form_token" value=(form_token);
            input type="hidden" name="key" value=(Uuid::now_v7());
            input type="hidden" name="etag" value=(tag(row.generation, row.epoch));
            p { (asked.about) }
            ((asked.fields)())
            label for="reason" { "Reason, for the audit log" }
            input #reason name="reason" required maxlength="500" autofocus autocomplete="off";
            p.actions {
                button type="submit" { (asked.title) }
                a.button.plain href=(format!("/jobs/{}", row.id)) { "Back" }
            }
        }
    }
}
