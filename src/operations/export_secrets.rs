//! Exports the tracker with its tokens and secrets in plain text.

use serde_json::Value;

use super::OperationError;
use crate::secrets::Keyring;
use crate::store::{Action, Actor, Store};
use crate::tracker::{Export, Tracker};

/// Exports the tracker. The audit row is written before the secrets are read, so that every access
/// is recorded.
///
/// # Errors
/// [`OperationError::Store`], [`OperationError::Tracker`].
pub async fn export_secrets(
    store: &Store,
    tracker: &Tracker,
    keyring: &Keyring,
    actor: &Actor,
) -> Result<Export, OperationError> {
    store
        .audit(actor, Action::ExportSecrets, &Value::Null, &Value::Null)
        .await?;
    Ok(tracker.export(Some(keyring)).await?)
}
