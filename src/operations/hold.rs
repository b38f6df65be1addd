//! Holds a destination for a time: its jobs wait.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::OperationError;
use crate::store::{Action, Actor, AuditedChange, Store, StoreError, query_one};

const PLACE: &str = "
    INSERT INTO controls (kind, scope, reason, who, expires_at)
    VALUES ('hold', $1, $2, $3, now() + $4 * interval '1 second')
    RETURNING expires_at";

/// Places a hold, for `length` from now on, and returns its end.
///
/// # Errors
/// [`OperationError::Invalid`] for a text that is no scope; [`OperationError::NotPossible`] for the
/// wait key of a concurrency limit, which is no destination;
/// [`OperationError::Store`].
pub async fn hold(
    store: &Store,
    actor: &Actor,
    scope: &str,
    length: Duration,
) -> Result<OffsetDateTime, OperationError> {
    check_scope(scope).map_err(OperationError::Invalid)?;
    if let Some((destination, _)) = scope.split_once('#') {
        return Err(OperationError::NotPossible(format!(
            "expected a destination, got the wait key of its concurrency limit; use '{destination}'"
        )));
    }
    let change = store.audited(actor, Action::PlaceHold, async |tx| {
        let reason = actor.reason.as_deref().unwrap_or_default();
        let seconds = length.as_secs_f64();
        let row = query_one(tx, PLACE, &[&scope, &reason, &actor.who, &seconds]).await?;
        let after = json!({"scope": scope, "seconds": length.as_secs()});
        Ok::<_, OperationError>(AuditedChange {
            answer: row.try_get("expires_at").map_err(StoreError::from)?,
            audit: Some((Value::Null, after)),
            gone: None,
        })
    });
    Ok(change.await?.0)
}

/// Checks a scope: a misspelt one would hold nothing without an error.
///
/// # Errors
/// What is expected.
pub fn check_scope(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('|').collect();
    if parts.len() == 3 && parts.iter().all(|part| !part.trim().is_empty()) {
        return Ok(());
    }
    Err("expected three parts, such as 'acme|azure_devops|dev.azure.com' or 'acme|discord|7'; use a scope as `dispatch holds list` \
         shows it"
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_has_three_parts() {
        for right in [
            "acme|azure_devops|dev.azure.com",
            "*|discord|bot-1f2e3d4c5b6a7988",
            "acme|webhook|7#seats",
        ] {
            assert_eq!(check_scope(right), Ok(()));
        }
        for wrong in ["acme", "acme|discord", "acme||7", "acme|discord|7|8"] {
            assert!(check_scope(wrong).is_err(), "{wrong}");
        }
    }
}
