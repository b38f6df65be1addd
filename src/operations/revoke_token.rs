//! Revokes a token: requests and sessions with it are refused from now on.

use serde_json::{json, to_value};

use super::OperationError;
use crate::store::{self, Action, Actor, ApiToken, AuditedChange, Store};

/// Revokes the token with this name.
///
/// # Errors
/// [`OperationError::Unknown`] if there is none, and [`OperationError::Store`].
pub async fn revoke_token(
    store: &Store,
    actor: &Actor,
    name: &str,
) -> Result<ApiToken, OperationError> {
    let change = store.audited(actor, Action::RevokeToken, async |tx| {
        let token = store::revoke_token(tx, name).await?.ok_or_else(|| {
            OperationError::Unknown(format!(
                "expected the name of a token that is not revoked, got `{name}`; use a name that `dispatch tokens list` shows"
            ))
        })?;
        let (before, after) = (
            json!({"name": name, "revoked": false}),
            to_value(&token)?,
        );
        Ok::<_, OperationError>(AuditedChange {
            answer: token,
            audit: Some((before, after)),
            gone: None,
        })
    });
    Ok(change.await?.0)
}
