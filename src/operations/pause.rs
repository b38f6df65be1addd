//! Pauses everything for a time: no worker starts a stage, and messages still become rows.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{OperationError, control_terms};
use crate::store::control_scope::ALL;
use crate::store::{Action, Actor, AuditedChange, Store, StoreError, query_one};

const PAUSE: &str = "
    INSERT INTO controls (kind, scope, reason, who, expires_at)
    VALUES ('pause', $1, $2, $3, now() + $4 * interval '1 second')
    RETURNING expires_at";

/// Pauses all jobs for `length` from now on, and returns the end. A pause in force is not
/// shortened: the one that lasts longest counts.
///
/// # Errors
/// [`OperationError::Invalid`] for a length out of bounds, and without a reason;
/// [`OperationError::Store`].
pub async fn pause(
    store: &Store,
    actor: &Actor,
    length: Duration,
) -> Result<OffsetDateTime, OperationError> {
    let reason = control_terms(actor, length)?;
    let change = store.audited(actor, Action::PauseAll, async |tx| {
        let seconds = length.as_secs_f64();
        let row = query_one(tx, PAUSE, &[&ALL, &reason, &actor.who, &seconds]).await?;
        let after = json!({"scope": ALL, "seconds": length.as_secs()});
        Ok::<_, OperationError>(AuditedChange {
            answer: row.try_get("expires_at").map_err(StoreError::from)?,
            audit: Some((Value::Null, after)),
            gone: None,
        })
    });
    Ok(change.await?.0)
}
