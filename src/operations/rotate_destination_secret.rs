//! Replaces a destination's secret. The previous one stays in use for a time.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::json;

use super::OperationError;
use crate::pipelines::Services;
use crate::pipelines::connection_tests::check_destination;
use crate::secrets::Keyring;
use crate::store::{Action, Actor, AuditedChange, Store};
use crate::tracker::{self, Destination, Rotated};

/// A secret with which the channel can deliver.
#[derive(Debug)]
pub struct CheckedSecret<'a> {
    destination: Destination,
    name: &'a str,
    secret: &'a SecretString,
}

impl<'a> CheckedSecret<'a> {
    /// Checks a new secret without a call to the provider.
    ///
    /// # Errors
    /// [`OperationError::Invalid`], [`OperationError::Tracker`] also for an unknown destination.
    pub async fn of(
        organization: &str,
        name: &'a str,
        secret: &'a SecretString,
        services: &Services,
    ) -> Result<Self, OperationError> {
        let destination = services
            .sealed
            .known_destination(organization, name)
            .await?;
        check_destination(
            &services.providers,
            &destination.kind,
            &destination.config,
            Some(secret),
            destination.secret.as_ref(),
        )
        .map_err(|problem| OperationError::Invalid(problem.to_string()))?;
        Ok(Self {
            destination,
            name,
            secret,
        })
    }
}

/// Replaces the secret; the previous one stays in use for `keep_for`.
///
/// # Errors
/// [`OperationError::Tracker`], [`OperationError::Store`].
pub async fn rotate_destination_secret(
    store: &Store,
    keyring: &Keyring,
    actor: &Actor,
    new: &CheckedSecret<'_>,
    keep_for: Duration,
) -> Result<Rotated, OperationError> {
    let (id, name) = (new.destination.id, new.name);
    let change = store.audited(actor, Action::RotateDestinationSecret, async |tx| {
        let rotated =
            tracker::rotate_destination_secret(tx, keyring, id, new.secret, keep_for).await?;
        let before = json!({"destination_id": id, "destination": name});
        let after = json!({"destination_id": id, "destination": name, "rotated": rotated});
        Ok::<_, OperationError>(AuditedChange {
            answer: rotated,
            audit: Some((before, after)),
            gone: None,
        })
    });
    Ok(change.await?.0)
}
