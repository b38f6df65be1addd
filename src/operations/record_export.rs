//! Records that rows leave the console as a file.

use serde_json::Value;

use super::OperationError;
use crate::store::{Action, Actor, Store};

/// Records an export; called before it is sent, so that every one is recorded.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn record_export(
    store: &Store,
    actor: &Actor,
    action: Action,
    what: &Value,
) -> Result<(), OperationError> {
    Ok(store.audit(actor, action, &Value::Null, what).await?)
}
