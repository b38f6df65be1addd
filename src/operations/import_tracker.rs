//! Imports a tracker document: organizations, people, groups, links, identities and destinations.

use serde_json::Value;

use super::OperationError;
use crate::secrets::Keyring;
use crate::store::{self, Action, Actor};
use crate::tls_policy::Endpoint;
use crate::tracker::{self, Imported, TrackerDocument};

/// Imports a document on a connection of its own. The import is idempotent; jobs whose cause for
/// waiting it removes are released in its transaction.
///
/// # Errors
/// [`OperationError::Tracker`] for an invalid document, and [`OperationError::Store`].
pub async fn import_tracker(
    database_url: impl Into<Endpoint>,
    keyring: &Keyring,
    actor: &Actor,
    document: &TrackerDocument,
) -> Result<Imported, OperationError> {
    actor.permit(Action::ImportTracker)?;
    store::on_connection(database_url, async |client| {
        tracker::import(client, keyring, document, async |tx, imported| {
            let after = imported.audited();
            store::audit_on(tx, actor, Action::ImportTracker, &Value::Null, &after).await?;
            Ok::<_, OperationError>(())
        })
        .await
    })
    .await
}
