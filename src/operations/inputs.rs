//! The input of a job and its earlier ones, without secrets. They can name people: what a person
//! sees of them is masked, or shown by [`super::unmask`].

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::OperationError;
use crate::job::JobId;
use crate::message::without_secrets;
use crate::store::{InputVersion, Store};

/// The inputs of a job.
#[derive(Debug, Clone)]
pub struct JobInputs {
    /// The present one, as [`super::edit_input`] takes it; `None` if it is sealed, since this version
    /// does not know its schema.
    pub input: Option<Value>,
    /// The inputs before each edit, oldest first.
    pub earlier: Vec<EarlierInput>,
}

/// An input that was replaced.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EarlierInput {
    /// Its number, for [`super::restore_input`].
    pub version: i32,
    /// When it was replaced.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub replaced_at: OffsetDateTime,
    /// Who replaced it.
    pub replaced_by: String,
    /// The input.
    pub input: Value,
}

/// Reads the inputs of a job.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn inputs(store: &Store, job: JobId) -> Result<JobInputs, OperationError> {
    let (input, earlier) = store.inputs(job).await?;
    Ok(JobInputs {
        input: input.as_deref().map(without_secrets).transpose()?,
        earlier: earlier.into_iter().map(shown).collect::<Result<_, _>>()?,
    })
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
