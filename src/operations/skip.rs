//! Passes the stage due with an output that a person gives.

use serde_json::json;
use serde_json::value::RawValue;

use super::OperationError;
use super::possible::{JobAction, obstacle};
use super::within_input;
use crate::pipelines::by_hand::{ByHand, by_hand};
use crate::pipelines::registry;
use crate::store::{
    Action, ActionResult, Actor, JobChange, LockedJob, PassedStage, Store, StoreError, Target,
    Transaction, pass_stage, query_one,
};

pub(super) const PAYLOAD: &str = "SELECT payload::text AS payload FROM jobs WHERE id = $1";

/// Stores `output` as the checkpoint of the stage due, which must be `stage`; the job continues at
/// the next one. The stage itself makes nothing: no change, no follow-up, no effect. The output must
/// be one of that stage, and must name nothing that the job's own input does not.
///
/// # Errors
/// [`OperationError::Invalid`] for an output that is not of the stage or names something else, and
/// [`OperationError::Store`].
pub async fn skip(
    store: &Store,
    actor: &Actor,
    target: &Target,
    stage: &str,
    output: &str,
) -> Result<ActionResult, OperationError> {
    let ByHand { output, names } = by_hand(stage, output).map_err(OperationError::Invalid)?;
    store
        .change_job(actor, Action::SkipStage, target, async |tx, job| {
            if let Some(why) = obstacle(JobAction::Skip, &job.row) {
                return Ok(JobChange::Refused(why));
            }
            if job.row.stage != stage {
                return Err(OperationError::Invalid(format!(
                    "expected the stage due, `{}`, got `{stage}`; use the stage due, or re-run the job from another one first",
                    job.row.stage
                )));
            }
            let payload = payload(tx, job).await?;
            within_input::check(tx, job, &payload, &names).await?;
            passed(tx, job, &output, json!({})).await
        })
        .await
}

/// Reads the input of a locked job.
///
/// # Errors
/// [`OperationError::NotPossible`] if it is sealed.
pub(super) async fn payload(
    tx: &Transaction<'_>,
    job: &LockedJob,
) -> Result<String, OperationError> {
    let row = query_one(tx, PAYLOAD, &[&job.row.id.0]).await?;
    let payload: Option<String> = row.try_get("payload").map_err(StoreError::from)?;
    payload.ok_or_else(|| {
        OperationError::NotPossible(
            "its input is sealed until a worker that knows its schema has run it".to_owned(),
        )
    })
}

/// Passes the stage due, and adds the facts of it to `after` for the audit log.
pub(super) async fn passed(
    tx: &Transaction<'_>,
    job: &LockedJob,
    output: &RawValue,
    mut after: serde_json::Value,
) -> Result<JobChange, OperationError> {
    let stage = job.row.stage.as_str();
    let registry = registry();
    let pipeline = registry.get(&job.row.pipeline);
    let version = pipeline.and_then(|pipeline| pipeline.stage(stage));
    let passed = PassedStage {
        stage,
        version: version.map_or(1, |(info, _)| info.version),
        output,
    };
    let next = pipeline.and_then(|pipeline| pipeline.after(stage));
    let Some(now) = pass_stage(tx, job, passed, next).await? else {
        return Ok(JobChange::Refused(format!(
            "`{stage}` is done already; retry the job"
        )));
    };
    after["state"] = json!(now);
    after["passed"] = json!(stage);
    after["stage"] = json!(next);
    Ok(JobChange::Done { now, after })
}
