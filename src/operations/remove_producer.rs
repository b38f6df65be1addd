//! Removes a producer: its messages are refused from then on, its jobs continue.

use super::OperationError;
use crate::store::{self, Action, Actor, AuditedChange, Store};

/// Removes a producer.
///
/// # Errors
/// [`OperationError::Unknown`] if there is none with this name, and [`OperationError::Store`].
pub async fn remove_producer(
    store: &Store,
    actor: &Actor,
    name: &str,
) -> Result<(), OperationError> {
    let change = store.audited(actor, Action::RemoveProducer, async |tx| {
        let audit = store::remove_producer(tx, name).await?;
        if audit.is_none() {
            return Err(OperationError::Unknown(format!(
                "expected a registered producer, got {name:?}; use one that `dispatch producers list` shows"
            )));
        }
        Ok(AuditedChange {
            answer: (),
            audit,
            gone: None,
        })
    });
    change.await.map(drop)
}
