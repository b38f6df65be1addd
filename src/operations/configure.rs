//! Chooses the account of a job that waits for one. A producer's message does the same through
//! [`Store::configure`].

use super::OperationError;
use crate::pipelines::dispatch;
use crate::store::{ActionResult, Actor, Store, Target};

/// Sets the account; the job restarts at its first stage. Only the pipeline of dispatch jobs takes
/// an account.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn configure(
    store: &Store,
    actor: &Actor,
    target: &Target,
    account: &str,
) -> Result<ActionResult, OperationError> {
    let first = dispatch::pipeline().first();
    Ok(store.configure(target, account, first, actor).await?)
}
