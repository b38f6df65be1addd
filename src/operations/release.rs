//! Releases the holds of a scope: the jobs that wait for it continue, a few at a time.

use serde_json::json;

use super::OperationError;
use crate::store::control_scope::ALL;
use crate::store::{Action, Actor, AuditedChange, Store, end_holds};

/// Ends every hold of a scope and returns their number.
///
/// # Errors
/// [`OperationError::Unknown`] if there is none, [`OperationError::NotPossible`] for the pause, and [`OperationError::Store`].
pub async fn release(store: &Store, actor: &Actor, scope: &str) -> Result<usize, OperationError> {
    if scope == ALL {
        return Err(OperationError::NotPossible(
            "expected a hold, got the pause; use `dispatch resume`".to_owned(),
        ));
    }
    let change = store.audited(actor, Action::ReleaseHold, async |tx| {
        let reasons = end_holds(tx, scope).await?;
        if reasons.is_empty() {
            return Err(OperationError::Unknown(format!(
                "expected a scope with a hold, got {scope}; use a scope that `dispatch holds list` shows"
            )));
        }
        let before = json!({"scope": scope, "reasons": reasons});
        Ok(AuditedChange {
            answer: reasons.len(),
            audit: Some((before, json!({"scope": scope}))),
            gone: None,
        })
    });
    Ok(change.await?.0)
}
