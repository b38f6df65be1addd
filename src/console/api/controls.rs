//! What is held, paused and killed: who, why, and until when.

use std::time::Duration;

use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;

use super::jobs::Reason;
use crate::console::answer;
use crate::console::call::{Call, Changed};
use crate::console::pages;
use crate::console::problem::Problem;
use crate::console::routes::{Route, acts, reads};
use crate::operations;
use crate::store::ControlList;

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!(
        "list_controls",
        "/controls",
        "Lists holds, the pause, kill switches and circuits in force: the first 200",
        ["scope": "the beginning of the scope"],
        ControlList,
        list,
        pages::controls::page
    ),
    acts!("place_hold", "/controls/hold", "Holds a lane, stage, organization, provider or destination for a time", PlaceHold, false, Hold => Changed, hold, to_controls),
    acts!(form; "release_hold", "/controls/release", "Ends the holds of a scope", ReleaseHold, false, Scope => Changed, release, to_controls),
    acts!("pause", "/controls/pause", "Stops every job before its next stage for a time", PauseAll, false, Pause => Changed, pause, to_controls),
    acts!(form; "resume", "/controls/resume", "Ends the pause", ResumeAll, false, Reason => Changed, resume, to_controls),
    acts!(form; "end_kill_switch", "/controls/{number}/end", "Ends a kill switch", EndKillSwitch, false, Reason => Changed, end_kill_switch, to_controls),
    acts!(json DELETE; "end_control", "/controls/{number}", "Ends a control: a hold with the others of its scope; as an admin, the pause or a kill switch", ReleaseHold, false, Reason => Changed, end),
];

pub(super) fn to_controls(_: &Call, _: &Changed) -> String {
    "/controls".to_owned()
}

/// A hold.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Hold {
    /// `lane:…`, `stage:PIPELINE/STAGE`, `organization:…`, `provider:…`, or a destination.
    scope: String,
    /// How long, 1 minute to a week.
    minutes: u32,
    /// Why, for the audit log.
    reason: String,
}

/// A scope whose holds end.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scope {
    /// As the list of controls shows it.
    scope: String,
    /// Why, for the audit log.
    reason: String,
}

/// A pause of everything.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pause {
    /// How long, 1 minute to a week.
    minutes: u32,
    /// Why, for the audit log.
    reason: String,
}

/// Which controls to list.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::console) struct ControlQuery {
    #[serde(default)]
    pub(in crate::console) scope: String,
}

/// Returns the controls that a request asks for.
pub(in crate::console) async fn read(call: &Call) -> Result<ControlList, Problem> {
    let ControlQuery { scope } = call.query()?;
    Ok(call.reads().controls(&scope).await?)
}

async fn list(call: Call) -> Result<Response, Problem> {
    answer::json(&read(&call).await?)
}

async fn hold(call: &Call) -> Result<Changed, Problem> {
    let Hold {
        scope,
        minutes,
        reason,
    } = call.input()?;
    let actor = call.actor(&reason)?;
    call.once(&actor, async |store, actor| {
        operations::hold(store, actor, &scope, length(minutes)).await?;
        Ok(Changed::plain(true))
    })
    .await
}

async fn release(call: &Call) -> Result<Changed, Problem> {
    let Scope { scope, reason } = call.input()?;
    let actor = call.actor(&reason)?;
    call.once(&actor, async |store, actor| {
        operations::release(store, actor, &scope).await?;
        Ok(Changed::plain(true))
    })
    .await
}

async fn pause(call: &Call) -> Result<Changed, Problem> {
    let Pause { minutes, reason } = call.input()?;
    let actor = call.actor(&reason)?;
    call.once(&actor, async |store, actor| {
        operations::pause(store, actor, length(minutes)).await?;
        Ok(Changed::plain(true))
    })
    .await
}

async fn resume(call: &Call) -> Result<Changed, Problem> {
    let Reason { reason } = call.input()?;
    let actor = call.actor(&reason)?;
    call.once(&actor, async |store, actor| {
        operations::resume(store, actor).await?;
        Ok(Changed::plain(true))
    })
    .await
}

async fn end_kill_switch(call: &Call) -> Result<Changed, Problem> {
    let number: i64 = call.part("number")?;
    let Reason { reason } = call.input()?;
    let actor = call.actor(&reason)?;
    call.once(&actor, async |store, actor| {
        operations::end_kill_switch(store, actor, number).await?;
        Ok(Changed::plain(true))
    })
    .await
}

async fn end(call: &Call) -> Result<Changed, Problem> {
    let number: i64 = call.part("number")?;
    let Reason { reason } = call.input()?;
    let actor = call.actor(&reason)?;
    call.once(&actor, async |store, actor| {
        operations::end_control(store, actor, number).await?;
        Ok(Changed::plain(true))
    })
    .await
}

pub(super) fn length(minutes: u32) -> Duration {
    Duration::from_secs(u64::from(minutes) * 60)
}
