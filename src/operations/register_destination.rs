//! Registers a destination, or changes the one with this name.

use secrecy::SecretString;
use serde_json::Value;

use super::{OperationError, Registered, states};
use crate::pipelines::Services;
use crate::pipelines::connection_tests::check_destination;
use crate::secrets::Keyring;
use crate::store::{Action, Actor, AuditedChange, Store};
use crate::tracker::{
    self, DestinationRow, NewDestination, check_secret_place, known_organization,
};

/// The settings of a destination.
#[derive(Debug)]
pub struct DestinationSettings<'a> {
    /// Slug of the organization.
    pub organization: &'a str,
    /// Name of the destination, unique in the organization.
    pub name: &'a str,
    /// Kind of channel.
    pub kind: &'a str,
    /// Public settings of the channel, a JSON object.
    pub config: &'a Value,
    /// The new secret; `None` keeps the present one.
    pub secret: Option<&'a SecretString>,
    /// Whether jobs that name no destination use this one; `None` keeps the value.
    pub default: Option<bool>,
    /// `resend` or `hold`; `None` keeps the value.
    pub unknown_policy: Option<&'static str>,
}

/// Settings with which the channel can deliver.
#[derive(Debug)]
pub struct CheckedDestination<'a>(DestinationSettings<'a>);

impl<'a> CheckedDestination<'a> {
    /// Checks settings without a call to the provider. A kept secret must be valid for the new
    /// settings, and its kind, host and channel must not change.
    ///
    /// # Errors
    /// [`OperationError::Invalid`], [`OperationError::Tracker`].
    pub async fn of(
        settings: DestinationSettings<'a>,
        services: &Services,
    ) -> Result<Self, OperationError> {
        let DestinationSettings {
            organization,
            name,
            kind,
            config,
            secret,
            ..
        } = settings;
        services.tracker.known_organization(organization).await?;
        let rows = services
            .tracker
            .destination_rows(Some(organization))
            .await?;
        let present = rows.iter().find(|row| row.name == name && row.has_secret);
        let kept = match present {
            Some(row) if secret.is_none() => {
                check_secret_place(row, kind, config)
                    .map_err(|problem| OperationError::Invalid(problem.to_string()))?;
                let known = services.sealed.known_destination(organization, name);
                known.await?.secret
            }
            Some(_) | None => None,
        };
        check_destination(
            &services.providers,
            kind,
            config,
            secret.or(kept.as_ref()),
            None,
        )
        .map_err(|problem| OperationError::Invalid(problem.to_string()))?;
        Ok(Self(settings))
    }
}

/// Registers a destination.
///
/// # Errors
/// [`OperationError::Tracker`], [`OperationError::Store`].
pub async fn register_destination(
    store: &Store,
    keyring: &Keyring,
    actor: &Actor,
    CheckedDestination(settings): &CheckedDestination<'_>,
) -> Result<Registered<DestinationRow>, OperationError> {
    let change = store.audited(actor, Action::RegisterDestination, async |tx| {
        let new = NewDestination {
            organization_id: known_organization(tx, settings.organization).await?,
            name: settings.name,
            kind: settings.kind,
            config: settings.config,
            secret: settings.secret,
            default: settings.default,
            unknown_policy: settings.unknown_policy,
        };
        let row = tracker::register_destination(tx, keyring, &new).await?;
        // A secret appears in no row, so a given secret counts as a change.
        let secret = || (Value::Null, Value::from("its secret"));
        Ok::<_, OperationError>(AuditedChange {
            audit: states(&row)?.or_else(|| settings.secret.map(|_| secret())),
            gone: None,
            answer: row,
        })
    });
    let (row, released) = change.await?;
    Ok(Registered { row, released })
}
