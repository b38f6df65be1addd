//! Service-hook events that a job has committed.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;

use super::{TrackerFault, query};
use crate::fault::storable;

/// The longest event id that is told from another, in bytes. Azure DevOps' are GUIDs.
const EVENT_ID_BYTES: usize = 512;

/// An event id as stored: hostile ones are cut, and hold no NUL.
pub(super) fn stored_id(event_id: &str) -> String {
    storable(event_id, EVENT_ID_BYTES)
}

/// Which of these events have been seen: a job that handled them has committed its assignments.
pub(super) async fn seen_events(
    client: &impl GenericClient,
    integration_id: i64,
    ids: &[String],
) -> Result<HashSet<String>, TrackerFault> {
    const SQL: &str = "SELECT event_id FROM seen_events WHERE integration_id = $1 AND event_id = ANY ($2)";
    let stored: Vec<String> = ids.iter().map(|id| stored_id(id)).collect();
    let rows = query(client, SQL, &[&integration_id, &stored]).await?;
    let seen: HashSet<String> = rows.iter().map(|row| row.try_get("event_id")).collect::<Result<_, _>>()?;
    Ok(ids.iter().zip(&stored).filter(|(_, stored)| seen.contains(*stored)).map(|(id, _)| id.clone()).collect())
}
