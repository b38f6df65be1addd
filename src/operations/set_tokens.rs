//! Replaces the tokens of an identity.

use serde_json::json;

use super::OperationError;
use crate::secrets::Keyring;
use crate::store::{Action, Actor, AuditedChange, Released, Store};
use crate::tracker::{self, GivenTokens, IdentityRow, identity_cause};

/// Replaces all tokens of an identity; jobs that wait for them continue.
///
/// # Errors
/// [`OperationError::Tracker`] for an unknown identity, and [`OperationError::Store`].
pub async fn set_tokens(
    store: &Store,
    keyring: &Keyring,
    actor: &Actor,
    organization: &str,
    name: &str,
    tokens: &GivenTokens,
) -> Result<(IdentityRow, Released), OperationError> {
    let change = store.audited(actor, Action::SetTokens, async |tx| {
        let (before, now) = tracker::set_tokens(tx, keyring, organization, name, tokens).await?;
        Ok::<_, OperationError>(AuditedChange {
            audit: Some((json!(before), json!(now))),
            gone: Some(identity_cause(now.id)),
            answer: now,
        })
    });
    change.await
}
