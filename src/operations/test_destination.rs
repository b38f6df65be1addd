//! Sends a test message to a destination.

use serde_json::{Value, json};

use super::OperationError;
use crate::pipelines::Services;
use crate::pipelines::connection_tests::{Sent, try_destination};
use crate::store::{Action, Actor, Store};

/// Sends one test message, even if the destination is disabled. The audit row is written before
/// the message is sent, so that every test message is recorded.
///
/// # Errors
/// [`OperationError::Tracker`] for an unknown destination, [`OperationError::Provider`],
/// [`OperationError::Store`].
pub async fn test_destination(
    store: &Store,
    services: &Services,
    actor: &Actor,
    organization: &str,
    name: &str,
) -> Result<Sent, OperationError> {
    let destination = services
        .sealed
        .known_destination(organization, name)
        .await?;
    let tested = json!({"destination_id": destination.id, "destination": name});
    store
        .audit(actor, Action::TestDestination, &Value::Null, &tested)
        .await?;
    try_destination(services, &destination, &actor.who)
        .await
        .map_err(OperationError::Provider)
}
