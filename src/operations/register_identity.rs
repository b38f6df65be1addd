//! Registers an identity with its tokens.

use serde_json::{Value, json};

use super::OperationError;
use crate::secrets::Keyring;
use crate::store::{Action, Actor, AuditedChange, Released, Store};
use crate::tracker::{self, GivenTokens, IdentityRow, identity_cause};

/// Registers an identity. Jobs that already wait for one with its id continue.
///
/// # Errors
/// [`OperationError::Tracker`] for an unknown organization or a taken name, and
/// [`OperationError::Store`].
pub async fn register_identity(
    store: &Store,
    keyring: &Keyring,
    actor: &Actor,
    organization: &str,
    name: &str,
    tokens: &GivenTokens,
) -> Result<(IdentityRow, Released), OperationError> {
    let change = store.audited(actor, Action::RegisterIdentity, async |tx| {
        let now = tracker::register_identity(tx, keyring, organization, name, tokens).await?;
        Ok::<_, OperationError>(AuditedChange {
            audit: Some((Value::Null, json!(now))),
            gone: Some(identity_cause(now.id)),
            answer: now,
        })
    });
    change.await
}
