//! Reads the service-hook events that jobs have marked as seen.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;

use super::{TrackerFault, query};
use crate::fault::storable;

/// The limit of a stored event id in bytes; longer ones are truncated. Azure DevOps uses GUIDs.
const EVENT_ID_BYTES: usize = 512;

/// Returns an event id in its stored form: truncated, and without NUL.
pub(super) fn stored_id(event_id: &str) -> String {
    storable(event_id, EVENT_ID_BYTES)
}

/// Returns which of these events have been seen: a job that handled them has committed its
/// assignments.
pub(super) async fn seen_events(
    client: &impl GenericClient,
    integration_id: i64,
    ids: &[String],
) -> Result<HashSet<String>, TrackerFault> {
    const SQL: &str =
        "SELECT event_id FROM seen_events WHERE integration_id = $1 AND event_id = ANY ($2)";
    let stored: Vec<String> = ids.iter().map(|id| stored_id(id)).collect();
    let rows = query(client, SQL, &[&integration_id, &stored]).await?;
    let seen: HashSet<String> = rows
        .iter()
        .map(|row| row.try_get("event_id"))
        .collect::<Result<_, _>>()?;
    Ok(ids
        .iter()
        .zip(&stored)
        .filter(|(_, stored)| seen.contains(*stored))
        .map(|(id, _)| id.clone())
        .collect())
}
