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
/// [`OperationError::NotPossible`] for the wait key of a concurrency limit, which is no destination;
/// [`OperationError::Store`].
pub async fn hold(
    store: &Store,
    actor: &Actor,
    scope: &str,
    length: Duration,
) -> Result<OffsetDateTime, OperationError> {
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
