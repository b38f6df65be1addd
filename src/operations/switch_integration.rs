//! Enables or disables an account of an organization.

use super::{OperationError, Registered, states};
use crate::store::{Action, Actor, AuditedChange, Store};
use crate::tracker::{
    InstallationRow, installation_cause, known_organization, set_installation_disabled,
};

/// Enables an account, and its waiting jobs continue; or disables it, and its jobs wait.
///
/// # Errors
/// [`OperationError::Tracker`] for an unknown account, and [`OperationError::Store`].
pub async fn switch_integration(
    store: &Store,
    actor: &Actor,
    organization: &str,
    account_id: &str,
    disabled: bool,
) -> Result<Registered<InstallationRow>, OperationError> {
    let action = if disabled {
        Action::DisableIntegration
    } else {
        Action::EnableIntegration
    };
    let change = store.audited(actor, action, async |tx| {
        let organization_id = known_organization(tx, organization).await?;
        let row = set_installation_disabled(tx, organization_id, account_id, disabled).await?;
        let cause = || installation_cause(row.after.integration_id, organization_id);
        Ok::<_, OperationError>(AuditedChange {
            audit: states(&row)?,
            gone: (!disabled).then(cause),
            answer: row,
        })
    });
    let (row, released) = change.await?;
    Ok(Registered { row, released })
}
