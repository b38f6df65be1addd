//! Ends a control by its number, whatever kind it is of.

use super::{OperationError, end_kill_switch, release, resume};
use crate::store::{Actor, Store};

/// Ends the control in force with this number: a kill switch, the pause, or a hold. A hold ends with
/// the others of its scope, because each of them stops the same jobs. The action in the audit log,
/// and the role that it requires, are those of the kind.
///
/// # Errors
/// [`OperationError::Unknown`] if there is none in force, and [`OperationError::Store`].
pub async fn end_control(store: &Store, actor: &Actor, id: i64) -> Result<(), OperationError> {
    let Some((kind, scope)) = store.control_in_force(id).await? else {
        return Err(OperationError::Unknown(format!(
            "expected a control in force, got {id}; use a number of the list of controls"
        )));
    };
    match kind.as_str() {
        "kill_switch" => end_kill_switch(store, actor, id).await,
        "pause" => resume(store, actor).await.map(drop),
        _ => release(store, actor, &scope).await.map(drop),
    }
}
