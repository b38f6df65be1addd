//! Registers an account for an organization, or changes it.

use super::{OperationError, Registered, states};
use crate::store::{Action, Actor, AuditedChange, Store};
use crate::tracker::{
    InstallationRow, NewInstallation, identity_cause, known_organization, register_installation,
};

/// The settings of an account. What is `None` keeps its value.
#[derive(Debug)]
pub struct IntegrationSettings<'a> {
    /// Slug of the organization.
    pub organization: &'a str,
    /// Id of the account, a GUID.
    pub account_id: &'a str,
    /// Name of the account, as in its URLs.
    pub account_name: &'a str,
    /// Identity that the worker uses if a job names none.
    pub identity: Option<&'a str>,
    /// Whether assignees are synchronised from Azure DevOps.
    pub assignee_inbound: Option<bool>,
    /// Whether assignees are synchronised to the other linked work items.
    pub assignee_outbound: Option<bool>,
    /// Whether the status is synchronised from Azure DevOps.
    pub status_inbound: Option<bool>,
    /// Disables the account: its jobs wait. `false` keeps the state; `switch_integration` enables it.
    pub disabled: bool,
}

/// Registers an account. Jobs that wait for the previous identity to sign in continue with the new
/// one; jobs that need the previous one wait again.
///
/// # Errors
/// [`OperationError::Tracker`] for an unknown organization or identity, and
/// [`OperationError::Store`].
pub async fn register_integration(
    store: &Store,
    actor: &Actor,
    settings: &IntegrationSettings<'_>,
) -> Result<Registered<InstallationRow>, OperationError> {
    let change = store.audited(actor, Action::RegisterIntegration, async |tx| {
        let new = NewInstallation {
            organization_id: known_organization(tx, settings.organization).await?,
            account_id: settings.account_id,
            account_name: settings.account_name,
            identity: settings.identity,
            assignee_inbound: settings.assignee_inbound,
            assignee_outbound: settings.assignee_outbound,
            status_inbound: settings.status_inbound,
            disabled: settings.disabled.then_some(true),
        };
        let row = register_installation(tx, &new).await?;
        let before = row.before.as_ref().and_then(|before| before.identity_id);
        let previous = before.filter(|_| before != row.after.identity_id);
        Ok::<_, OperationError>(AuditedChange {
            audit: states(&row)?,
            gone: previous.map(identity_cause),
            answer: row,
        })
    });
    let (row, released) = change.await?;
    Ok(Registered { row, released })
}
