//! Service-hook events that a job has committed.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;

use super::{TrackerFault, execute, query};
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

/// Forgets at most `limit` events seen more than `days` days ago, so that the table has a limit; says how many. A repetition
/// of a forgotten event is harmless: the tracker's present state decides.
pub(super) async fn forget_events(client: &impl GenericClient, days: i32, limit: i64) -> Result<u64, TrackerFault> {
    const SQL: &str = "
        DELETE FROM seen_events
        WHERE (integration_id, event_id) IN (
            SELECT integration_id, event_id
            FROM seen_events
            WHERE seen_at < now() - make_interval(days => $1)
            ORDER BY seen_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED)";
    execute(client, SQL, &[&days, &limit]).await
}
