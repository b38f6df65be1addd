//! The page before an action on a job: what it does, for which job, and why. Its form has the
//! version of the job that the person saw, and a key, so that a second click changes nothing.

use axum::http::Method;
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::Frame;
use super::job_actions::{ASKED, Asked, from_stage, obstacle};
use super::job_data::changes;
use super::words::{state, table};
use crate::console::answer;
use crate::console::api::job_data::read_data;
use crate::console::call::{Call, tag};
use crate::console::problem::Problem;
use crate::console::routes::{Access, JSON, Parameter, Route, handler, schema};
use crate::console::schema::permit_changes;
use crate::operations::{self, JobAction, possible};
use crate::store::{JobRow, MayRepeat, Role, Target};

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
    parameters: &[
        Parameter {
            name: "stage",
            about: "the first stage to run again",
            is_several: false,
        },
        Parameter {
            name: "effect",
            about: "the key of an effect",
            is_several: false,
        },
        Parameter {
            name: "done",
            about: "whether the effect is done",
            is_several: false,
        },
        Parameter {
            name: "version",
            about: "the number of an earlier input",
            is_several: false,
        },
    ],
    input: None,
    output: schema::<()>,
    media_type: JSON,
    api: None,
    page: Some(handler!(page)),
};

/// What the action is for.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    #[serde(default)]
    stage: Option<String>,
    #[serde(default)]
    effect: Option<String>,
    #[serde(default)]
    done: Option<bool>,
    #[serde(default)]
    version: Option<i32>,
}

async fn page(call: Call) -> Result<Response, Problem> {
    let word: String = call.part("action")?;
    let asked = ASKED.iter().find(|asked| asked.word == word);
    let asked = asked.ok_or_else(|| Problem::not_found(format!("there is no action `{word}`")))?;
    let about: About = call.query()?;
    let row = call.job().await?;
    let role = call.who.token.role;
    if !role.may(asked.audit) {
        return Err(Problem::forbidden(format!(
            "expected a role that permits `{}`, got `{}`",
            asked.audit.word(),
            role.word()
        )));
    }
    permit_changes(&call.console).await?;
    let explained = operations::explain(call.reads(), &row, call.who.audience()).await?;
    let frame = Frame::of(&call.who);
    let back = format!("/jobs/{}", row.id);
    let content = html! {
        h1 { (asked.title) }
        p { (state(row.state)) " " a href=(back) { (row.source) " " (row.dedupe_key) } " of " (row.organization) }
        p.explain { (explained.explanation) }
        @match obstacle(&possible(&row), asked.action) {
            Some(why) => p.problem { "Not possible: " (why) "." },
            None => (form(&call, asked, &row, &about, &frame).await?),
        }
        p { a.button.plain href=(back) { "Back to the job" } }
    };
    Ok(answer::page(frame.still(asked.title, &content)))
}

async fn form(
    call: &Call,
    asked: &Asked,
    row: &JobRow,
    about: &About,
    frame: &Frame<'_>,
) -> Result<Markup, Problem> {
    if asked.action == JobAction::Rerun && about.stage.is_none() {
        let path = format!("/jobs/{}/confirm/{}", row.id, asked.word);
        return Ok(html! { p { (asked.about) } (from_stage(&path, row)) });
    }
    let fields = fields(call, asked.action, row, about).await?;
    let fields = html! {
        input type="hidden" name="etag" value=(tag(row.generation, row.epoch));
        p { (asked.about) }
        (fields)
    };
    let path = format!("/jobs/{}/{}", row.id, asked.post);
    Ok(frame.form(&path, asked.title, &fields))
}

/// Returns the fields of an action beside the reason.
async fn fields(
    call: &Call,
    action: JobAction,
    row: &JobRow,
    about: &About,
) -> Result<Markup, Problem> {
    match action {
        JobAction::Retry
        | JobAction::Cancel
        | JobAction::Park
        | JobAction::EditInput
        | JobAction::Unmask => Ok(html! {}),
        JobAction::Configure => Ok(html! {
            label for="account" { "Id of the account" }
            input #account name="account" required autocomplete="off" spellcheck="false";
        }),
        JobAction::Rerun => {
            let stage = about.stage.as_deref().unwrap_or(&row.stage);
            let target = Target::Id(row.id);
            let repeats = operations::effects_that_may_repeat(call.reads(), &target, stage).await?;
            Ok(html! {
                input type="hidden" name="stage" value=(stage);
                p { "From the stage " code { (stage) } " on." }
                (may_repeat(&repeats))
            })
        }
        JobAction::Skip => Ok(html! {
            input type="hidden" name="stage" value=(row.stage);
            label for="output" { "Output of " (row.stage) ", as JSON; it may name nothing that the input does not" }
            textarea.document #output name="output" rows="10" required spellcheck="false" {}
        }),
        JobAction::MarkEffect => effect(about),
        JobAction::RestoreInput => restore(call, row, about).await,
    }
}

fn may_repeat(repeats: &MayRepeat) -> Markup {
    if repeats.effects.is_empty() {
        return html! { p { "No effect has happened that it could repeat." } };
    }
    let rows: Vec<Vec<Markup>> = repeats
        .effects
        .iter()
        .map(|one| {
            vec![
                html! { (one.class) },
                html! { (one.stage) @if one.of_follow_ups { ", of follow-ups" } },
                html! { (one.count) },
                html! { @if one.class == "K3" { "may be duplicates" } @else { "have no effect if repeated" } },
            ]
        })
        .collect();
    html! {
        p { "Effects that may be repeated:" }
        (table(&["class", "stage", "effects", "repetitions"], &rows))
    }
}

fn effect(about: &About) -> Result<Markup, Problem> {
    let (Some(key), Some(done)) = (&about.effect, about.done) else {
        return Err(Problem::invalid_filter(
            "expected `effect` and `done`; use the links of the job's page",
        ));
    };
    Ok(html! {
        input type="hidden" name="effect" value=(key);
        input type="hidden" name="done" value=(done);
        p { "The effect " code { (key) } " is " b { @if done { "done" } @else { "not done" } } "." }
        @if done {
            label for="provider_ref" { "What the provider calls it, if you know: the id of a message" }
            input #provider_ref name="provider_ref" autocomplete="off" spellcheck="false";
        }
    })
}

async fn restore(call: &Call, row: &JobRow, about: &About) -> Result<Markup, Problem> {
    let data = read_data(call, row.id).await?;
    let version = about.version;
    let found = data
        .earlier
        .iter()
        .find(|one| Some(one.version.version) == version);
    let Some(found) = found else {
        return Err(Problem::not_found(
            "expected the number of an earlier input as `version`; use the links of the job's page",
        ));
    };
    let changed = data.input.iter();
    let changed = changed.flat_map(|now| operations::diff(now, &found.version.input));
    let changed: Vec<_> = changed.collect();
    Ok(html! {
        input type="hidden" name="version" value=(found.version.version);
        h2 { "What it changes" }
        (changes(&changed))
    })
}
