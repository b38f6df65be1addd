//! Enables or disables a destination.

use super::{OperationError, Registered, states};
use crate::store::{Action, Actor, AuditedChange, Store};
use crate::tracker::{
    DestinationRow, destination_cause, known_organization, set_destination_disabled,
};

/// Enables a destination, and its waiting jobs continue; or disables it, and messages for it wait.
///
/// # Errors
/// [`OperationError::Tracker`] for an unknown name, and [`OperationError::Store`].
pub async fn switch_destination(
    store: &Store,
    actor: &Actor,
    organization: &str,
    name: &str,
    disabled: bool,
) -> Result<Registered<DestinationRow>, OperationError> {
    let action = if disabled {
        Action::DisableDestination
    } else {
        Action::EnableDestination
    };
    let change = store.audited(actor, action, async |tx| {
        let organization_id = known_organization(tx, organization).await?;
        let row = set_destination_disabled(tx, organization_id, name, disabled).await?;
        Ok::<_, OperationError>(AuditedChange {
            audit: states(&row)?,
            gone: (!disabled).then(|| destination_cause(row.after.id)),
            answer: row,
        })
    });
    let (row, released) = change.await?;
    Ok(Registered { row, released })
}
