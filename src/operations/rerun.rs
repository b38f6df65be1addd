//! Runs a job again from a stage on, as a new generation. The checkpoints of earlier stages are
//! carried over.

use serde_json::json;

use super::OperationError;
use super::possible::{JobAction, obstacle};
use super::restart::{restart, stored};
use crate::job::JobState;
use crate::pipelines::registry;
use crate::store::{Action, ActionResult, Actor, JobChange, MayRepeat, Store, Target};

/// Runs an open job again from `stage` on. Its open follow-ups are cancelled; the new generation
/// makes its own.
///
/// # Errors
/// [`OperationError::Invalid`] if the job cannot start at that stage; [`OperationError::Store`].
pub async fn rerun(
    store: &Store,
    actor: &Actor,
    target: &Target,
    stage: &str,
) -> Result<ActionResult, OperationError> {
    store
        .change_job(actor, Action::Rerun, target, async |tx, job| {
            let row = &job.row;
            if let Some(why) = obstacle(JobAction::Rerun, row) {
                return Ok(JobChange::Refused(why));
            }
            let (before, _) = around(&row.pipeline, stage)?;
            let stored = stored(tx, job).await?;
            let missing = before.iter().find(|one| !stored.iter().any(|has| has == *one));
            if let Some(missing) = missing {
                return Err(OperationError::Invalid(format!(
                    "expected a stage whose earlier stages are done, got `{stage}`, but `{missing}` is not done; use `{missing}` or an earlier one"
                )));
            }
            let cancelled = restart(tx, job, stage, &before).await?;
            Ok(JobChange::Done {
                now: JobState::Ready,
                after: json!({"state": "ready", "stage": stage, "generation": row.generation + 1, "follow_ups_cancelled": cancelled}),
            })
        })
        .await
}

/// Returns the effects that a re-run from `stage` on may repeat, by class: those that these stages
/// had in any generation, and those of the job's follow-ups. Changes nothing.
///
/// # Errors
/// [`OperationError::Unknown`] if there is no such job, [`OperationError::Invalid`] if its pipeline
/// has no such stage, [`OperationError::Store`].
pub async fn effects_that_may_repeat(
    store: &Store,
    target: &Target,
    stage: &str,
) -> Result<MayRepeat, OperationError> {
    let row = store
        .job_of(target)
        .await?
        .ok_or_else(|| OperationError::Unknown("there is no such job".to_owned()))?;
    let (_, again) = around(&row.pipeline, stage)?;
    Ok(store.may_repeat(row.id, &again).await?)
}

/// Returns the stages of a pipeline's path before `stage`, and those from it on.
fn around(
    pipeline: &str,
    stage: &str,
) -> Result<(Vec<&'static str>, Vec<&'static str>), OperationError> {
    let registry = registry();
    let path: Vec<&'static str> = registry
        .get(pipeline)
        .into_iter()
        .flat_map(|pipeline| pipeline.stages())
        .filter(|stage| !stage.off_path)
        .map(|stage| stage.name)
        .collect();
    match path.iter().position(|name| *name == stage) {
        Some(at) => Ok((path[..at].to_vec(), path[at..].to_vec())),
        None => Err(OperationError::Invalid(format!(
            "expected a stage of `{pipeline}`, got `{stage}`; use one of {}",
            path.join(", ")
        ))),
    }
}
