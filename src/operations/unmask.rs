//! Shows what a job works with: its input, its earlier inputs and the outputs of its stages. Secrets
//! are not part of it.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::OperationError;
use super::inputs::{EarlierInput, JobInputs, inputs};
use crate::store::{Action, ActionResult, Actor, CheckpointRow, JobChange, Store, Target};

/// The personal data of a job.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Unmasked {
    /// The input, as [`super::edit_input`] takes it; `None` if it is sealed, since this version does
    /// not know its schema.
    pub input: Option<Value>,
    /// The inputs before each edit, oldest first.
    pub earlier: Vec<EarlierInput>,
    /// The outputs of all generations.
    pub outputs: Vec<CheckpointRow>,
}

/// Returns the input and the outputs of a job. The audit row is committed before anything is read,
/// so that every access is recorded. The job is not changed.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn unmask(
    store: &Store,
    actor: &Actor,
    target: &Target,
) -> Result<(ActionResult, Option<Unmasked>), OperationError> {
    let result = store
        .change_job(actor, Action::Unmask, target, async |_, job| {
            Ok::<_, OperationError>(JobChange::Done {
                now: job.row.state,
                after: json!({"state": job.row.state, "shown": ["input", "outputs"]}),
            })
        })
        .await?;
    let ActionResult::Done { job, .. } = &result else {
        return Ok((result, None));
    };
    let JobInputs { input, earlier } = inputs(store, *job).await?;
    let unmasked = Unmasked {
        input,
        earlier,
        outputs: store.checkpoints(*job).await?,
    };
    Ok((result, Some(unmasked)))
}
