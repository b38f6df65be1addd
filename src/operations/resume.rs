//! Ends the pause: the jobs that wait for it continue, a few at a time.

use serde_json::json;

use super::OperationError;
use crate::store::control_scope::ALL;
use crate::store::{Action, Actor, AuditedChange, Store, end_holds};

/// Ends every pause in force and returns their number.
///
/// # Errors
/// [`OperationError::Unknown`] if there is none, and [`OperationError::Store`].
pub async fn resume(store: &Store, actor: &Actor) -> Result<usize, OperationError> {
    let change = store.audited(actor, Action::ResumeAll, async |tx| {
        let reasons = end_holds(tx, ALL).await?;
        if reasons.is_empty() {
            return Err(OperationError::Unknown(
                "expected a pause in force, got none; nothing was changed".to_owned(),
            ));
        }
        let before = json!({"scope": ALL, "reasons": reasons});
        Ok(AuditedChange {
            answer: reasons.len(),
            audit: Some((before, json!({"scope": ALL}))),
            gone: None,
        })
    });
    Ok(change.await?.0)
}
