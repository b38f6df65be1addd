//! Cancels a job and its open follow-ups. A producer's message does the same through
//! [`Store::cancel`].

use super::OperationError;
use crate::store::{ActionResult, Actor, Store, Target};

/// Cancels a job that is not done.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn cancel(
    store: &Store,
    actor: &Actor,
    target: &Target,
) -> Result<ActionResult, OperationError> {
    Ok(store.cancel(target, actor).await?)
}
