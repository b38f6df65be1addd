//! Settles an effect whose outcome is not known: a person has looked and says whether it is done.

use serde_json::json;

use super::OperationError;
use super::possible::{JobAction, obstacle};
use super::retry::RETRY;
use super::skip::{passed, payload};
use crate::job::{EffectState, JobState};
use crate::pipelines::by_hand::done_by_hand;
use crate::store::{
    Action, ActionResult, Actor, JobChange, LockedJob, Row, Store, StoreError, Target, Transaction,
    execute, query_opt,
};

/// What a person has found out about an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is done; the provider's name for what was made, if it is known.
    Done {
        /// A message id, a revision.
        provider_ref: Option<String>,
    },
    /// It is not done.
    NotDone,
}

const EFFECT: &str = "
    SELECT stage, generation, state, maybe_done, deadline_at <= now() AS is_over FROM effects WHERE job_id = $1 AND key = $2 FOR UPDATE";

const DONE: &str = "
    UPDATE effects SET state = 'confirmed', provider_ref = coalesce($3, provider_ref), settled_at = now() WHERE job_id = $1 AND key = $2";

const NOT_DONE: &str = "
    UPDATE effects SET state = 'failed', maybe_done = false, settled_at = now() WHERE job_id = $1 AND key = $2";

/// Records what a person has found out about the effect `key`. Of the stage due, a done effect
/// passes the stage, and one that is not done makes the job due. An effect of an earlier stage or
/// generation is recorded, and the job stays as it is.
///
/// # Errors
/// [`OperationError::Unknown`] if the job has no such effect, [`OperationError::NotPossible`] if its
/// outcome is known or the call may still be under way, [`OperationError::Store`].
pub async fn mark_effect(
    store: &Store,
    actor: &Actor,
    target: &Target,
    key: &str,
    found: &Found,
) -> Result<ActionResult, OperationError> {
    store
        .change_job(actor, Action::MarkEffect, target, async |tx, job| {
            if let Some(why) = obstacle(JobAction::MarkEffect, &job.row) {
                return Ok(JobChange::Refused(why));
            }
            let row = query_opt(tx, EFFECT, &[&job.row.id.0, &key]).await?;
            let row = row.ok_or_else(|| {
                OperationError::Unknown(format!("the job has no effect with the key `{key}`"))
            })?;
            let effect = Effect::of(&row)?;
            if let Some(why) = effect.is_settled() {
                return Err(OperationError::NotPossible(why.to_owned()));
            }
            settle(tx, job, key, found, &effect).await
        })
        .await
}

async fn settle(
    tx: &Transaction<'_>,
    job: &LockedJob,
    key: &str,
    found: &Found,
    effect: &Effect,
) -> Result<JobChange, OperationError> {
    let id = job.row.id.0;
    let is_due = effect.stage == job.row.stage && effect.generation == job.row.generation;
    let after =
        json!({"effect": key, "done": matches!(found, Found::Done { .. }), "was": effect.state});
    match found {
        Found::Done { provider_ref } => {
            execute(tx, DONE, &[&id, &key, provider_ref]).await?;
            if is_due {
                let payload = payload(tx, job).await?;
                let output = done_by_hand(&effect.stage, &payload, provider_ref.as_deref())
                    .map_err(OperationError::NotPossible)?;
                let output = output.ok_or_else(|| {
                    OperationError::NotPossible(format!("`{}` has no effects", effect.stage))
                })?;
                return passed(tx, job, &output, after).await;
            }
        }
        Found::NotDone => {
            execute(tx, NOT_DONE, &[&id, &key]).await?;
            if is_due {
                execute(tx, RETRY, &[&id]).await?;
                let now = JobState::Ready;
                return Ok(JobChange::Done { now, after });
            }
        }
    }
    let now = job.row.state;
    Ok(JobChange::Done { now, after })
}

struct Effect {
    stage: String,
    generation: i32,
    state: EffectState,
    maybe_done: bool,
    is_over: bool,
}

impl Effect {
    fn of(row: &Row) -> Result<Self, StoreError> {
        let state: String = row.try_get("state")?;
        Ok(Self {
            stage: row.try_get("stage")?,
            generation: row.try_get("generation")?,
            state: state
                .parse()
                .map_err(|error: crate::job::UnknownWord| StoreError::Row(error.to_string()))?,
            maybe_done: row.try_get("maybe_done")?,
            is_over: row.try_get("is_over")?,
        })
    }

    /// Returns why there is nothing to find out.
    fn is_settled(&self) -> Option<&'static str> {
        match self.state {
            EffectState::Unknown => None,
            EffectState::InFlight if self.is_over => None,
            EffectState::InFlight => {
                Some("its call may still be under way; try again when its deadline has passed")
            }
            EffectState::Failed if self.maybe_done => None,
            EffectState::Failed => Some("it is known that the effect is not done"),
            EffectState::Confirmed => Some("it is known that the effect is done"),
        }
    }
}
