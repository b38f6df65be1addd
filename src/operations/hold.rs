//! Holds a destination, a provider, a lane, a stage or an organization for a time: its jobs wait.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::hold_scope::{check_scope, organization_of};
use super::{OperationError, control_terms};
use crate::store::{Action, Actor, AuditedChange, Store, StoreError, query_one};
use crate::tracker::known_organization;

const PLACE: &str = "
    INSERT INTO controls (kind, scope, reason, who, expires_at)
    VALUES ('hold', $1, $2, $3, now() + $4 * interval '1 second')
    RETURNING expires_at";

/// Places a hold, for `length` from now on, and returns its end.
///
/// # Errors
/// [`OperationError::Invalid`] for a text that is no scope, a length out of bounds, and without a
/// reason; [`OperationError::Tracker`] for an organization that does not exist;
/// [`OperationError::NotPossible`] for the wait key of a concurrency limit, which is no destination;
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
    let reason = control_terms(actor, length)?;
    let change = store.audited(actor, Action::PlaceHold, async |tx| {
        if let Some(slug) = organization_of(scope) {
            known_organization(tx, slug).await?;
        }
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
