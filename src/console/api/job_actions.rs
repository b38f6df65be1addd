//! What people do by hand with one job that a retry does not help.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::job_data::document;
use super::jobs::{Reason, act, to_job, told};
use crate::console::call::{Call, Changed, of_job};
use crate::console::problem::Problem;
use crate::console::routes::{Route, acts};
use crate::operations::{self, Found, PathChange};
use crate::store::Actor;

pub(in crate::console) const ROUTES: &[Route] = &[
    acts!("park_job", "/jobs/{id}/park", "Stops an open job until a person retries it", Park, true, Reason => Changed, park, to_job),
    acts!("rerun_job", "/jobs/{id}/rerun", "Runs a job again from a stage on, as a new generation", Rerun, true, Rerun => Changed, rerun, to_job),
    acts!("skip_stage", "/jobs/{id}/skip", "Passes the stage due with an output", SkipStage, true, Skip => Changed, skip, to_job),
    acts!("mark_effect", "/jobs/{id}/effect", "Records whether an effect with an unknown outcome is done", MarkEffect, true, Effect => Changed, mark_effect, to_job),
    acts!("edit_input", "/jobs/{id}/input", "Replaces the input of a job, which starts again at its first stage", EditInput, true, Input => Edited, edit_input, to_edited),
    acts!("restore_input", "/jobs/{id}/restore", "Restores an input that a job had before an edit", RestoreInput, true, Restore => Edited, restore_input, to_edited),
];

fn to_edited(call: &Call, edited: &Edited) -> String {
    to_job(call, &edited.result)
}

/// A stage to run again from.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rerun {
    /// The first stage to run again.
    stage: String,
    /// Why, for the audit log.
    reason: String,
}

/// A stage to pass.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Skip {
    /// The stage due.
    stage: String,
    /// Its output, as JSON text.
    output: String,
    /// Why, for the audit log.
    reason: String,
}

/// What is known about an effect.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Effect {
    /// The key of the effect. A form names it `effect`, since its `key` is the Idempotency-Key.
    #[serde(alias = "effect")]
    key: String,
    /// Whether it is done.
    done: bool,
    /// The provider's name for what was made.
    #[serde(default)]
    provider_ref: Option<String>,
    /// Why, for the audit log.
    reason: String,
}

/// An input.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// The input, as JSON text.
    input: String,
    /// Why, for the audit log.
    reason: String,
}

/// A kept input.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Restore {
    /// The number of the input.
    version: i32,
    /// Why, for the audit log.
    reason: String,
}

/// An edited job.
#[derive(Serialize, JsonSchema)]
struct Edited {
    /// What has become of the job.
    #[serde(flatten)]
    result: Changed,
    /// What differs from the input before.
    diff: Vec<PathChange>,
    /// The number under which the input before is kept.
    kept_as: Option<i32>,
}

async fn park(call: &Call) -> Result<Changed, Problem> {
    let input: Reason = call.input()?;
    act(call, &input.reason, async |store, actor, target| {
        Ok(operations::park(store, actor, target).await?)
    })
    .await
}

async fn rerun(call: &Call) -> Result<Changed, Problem> {
    let Rerun { stage, reason } = call.input()?;
    act(call, &reason, async |store, actor, target| {
        Ok(operations::rerun(store, actor, target, &stage).await?)
    })
    .await
}

async fn skip(call: &Call) -> Result<Changed, Problem> {
    let Skip {
        stage,
        output,
        reason,
    } = call.input()?;
    act(call, &reason, async |store, actor, target| {
        Ok(operations::skip(store, actor, target, &stage, &output).await?)
    })
    .await
}

async fn mark_effect(call: &Call) -> Result<Changed, Problem> {
    let Effect {
        key,
        done,
        provider_ref,
        reason,
    } = call.input()?;
    let found = if done {
        Found::Done { provider_ref }
    } else {
        Found::NotDone
    };
    act(call, &reason, async |store, actor, target| {
        Ok(operations::mark_effect(store, actor, target, &key, &found).await?)
    })
    .await
}

async fn edit_input(call: &Call) -> Result<Edited, Problem> {
    let Input { input, reason } = call.input()?;
    let document = document(&input)?;
    edited(call, &reason, async |actor, target| {
        operations::edit_input(call.acts(), actor, target, &document).await
    })
    .await
}

async fn restore_input(call: &Call) -> Result<Edited, Problem> {
    let Restore { version, reason } = call.input()?;
    edited(call, &reason, async |actor, target| {
        operations::restore_input(call.acts(), actor, target, version).await
    })
    .await
}

/// Carries out an edit. Its answer has the difference, which is empty in the answer that is kept
/// for a repetition.
async fn edited(
    call: &Call,
    reason: &str,
    edit: impl AsyncFnOnce(
        &Actor,
        &crate::store::Target,
    ) -> Result<operations::Edited, operations::OperationError>,
) -> Result<Edited, Problem> {
    let actor = call.actor(reason)?;
    let target = call.target().await?;
    let (mut diff, mut kept_as) = (Vec::new(), None);
    let result = call.once(&actor, async |_, actor| {
        let edited = edit(actor, &target).await?;
        (diff, kept_as) = (edited.diff, edited.kept_as);
        of_job(edited.result)
    });
    let result = told(call, result.await).await?;
    Ok(Edited {
        result,
        diff,
        kept_as,
    })
}
