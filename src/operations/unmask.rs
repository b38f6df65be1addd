//! Shows what a job works with: its input, its earlier inputs and the outputs of its stages. Secrets
//! are not part of it.

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::OperationError;
use crate::message::without_secrets;
use crate::store::{
    Action, ActionResult, Actor, CheckpointRow, InputVersion, JobChange, Store, Target,
};

/// The personal data of a job.
#[derive(Debug, Clone, Serialize)]
pub struct Unmasked {
    /// The input, as [`super::edit_input`] takes it; `None` if it is sealed, since this version does
    /// not know its schema.
    pub input: Option<Value>,
    /// The inputs before each edit, oldest first.
    pub earlier: Vec<EarlierInput>,
    /// The outputs of all generations.
    pub outputs: Vec<CheckpointRow>,
}

/// An input that was replaced.
#[derive(Debug, Clone, Serialize)]
pub struct EarlierInput {
    /// Its number, for [`super::restore_input`].
    pub version: i32,
    /// When it was replaced.
    #[serde(with = "time::serde::rfc3339")]
    pub replaced_at: OffsetDateTime,
    /// Who replaced it.
    pub replaced_by: String,
    /// The input.
    pub input: Value,
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
    let (input, earlier) = store.inputs(*job).await?;
    let earlier = earlier.into_iter().map(shown).collect::<Result<_, _>>()?;
    let unmasked = Unmasked {
        input: input.as_deref().map(without_secrets).transpose()?,
        earlier,
        outputs: store.checkpoints(*job).await?,
    };
    Ok((result, Some(unmasked)))
}

fn shown(one: InputVersion) -> Result<EarlierInput, serde_json::Error> {
    let InputVersion {
        version,
        replaced_at,
        replaced_by,
        payload,
    } = one;
    let input = without_secrets(&payload)?;
    Ok(EarlierInput {
        version,
        replaced_at,
        replaced_by,
        input,
    })
}
