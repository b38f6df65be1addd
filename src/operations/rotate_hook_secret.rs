//! Replaces the secret of an account's service hooks. Both secrets are valid for a time.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::OperationError;
use crate::store::{Action, Actor, AuditedChange, Store};
use crate::tracker::{self, Rotated};

/// Replaces the secret, of which only the SHA-256 is stored. The previous one stays valid for
/// `keep_for`.
///
/// # Errors
/// [`OperationError::Tracker`] for an unknown account, and [`OperationError::Store`].
pub async fn rotate_hook_secret(
    store: &Store,
    actor: &Actor,
    account_id: &str,
    secret: &SecretString,
    keep_for: Duration,
) -> Result<Rotated, OperationError> {
    let sha256: [u8; 32] = Sha256::digest(secret.expose_secret().as_bytes()).into();
    let change = store.audited(actor, Action::RotateHookSecret, async |tx| {
        let rotated = tracker::rotate_hook_secret(tx, account_id, &sha256, keep_for).await?;
        let after = json!({"account_id": account_id, "rotated": rotated});
        Ok::<_, OperationError>(AuditedChange {
            answer: rotated,
            audit: Some((Value::Null, after)),
            gone: None,
        })
    });
    Ok(change.await?.0)
}
