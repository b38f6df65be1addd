//! Ends a kill switch: no further job is stopped. The parked jobs stay parked until they are
//! retried.

use serde_json::{Value, json};

use super::OperationError;
use crate::store::{Action, Actor, AuditedChange, Store, StoreError, query_one};

const END: &str = "
    WITH ended AS (
        UPDATE controls SET released_at = now()
        WHERE id = $1 AND kind = 'kill_switch' AND released_at IS NULL AND expires_at > now()
        RETURNING matcher, reason
    )
    SELECT count(*) AS number, (SELECT matcher FROM ended) AS matcher, max(reason) AS reason FROM ended";

/// Ends the kill switch with this number.
///
/// # Errors
/// [`OperationError::Unknown`] if there is none in force, and [`OperationError::Store`].
pub async fn end_kill_switch(store: &Store, actor: &Actor, id: i64) -> Result<(), OperationError> {
    let change = store.audited(actor, Action::EndKillSwitch, async |tx| {
        let row = query_one(tx, END, &[&id]).await?;
        if row.try_get::<_, i64>("number").map_err(StoreError::from)? == 0 {
            return Err(OperationError::Unknown(format!(
                "expected a kill switch in force, got {id}; use a number that `dispatch killswitch list` shows"
            )));
        }
        let matcher: Option<Value> = row.try_get("matcher").map_err(StoreError::from)?;
        let reason: String = row.try_get("reason").map_err(StoreError::from)?;
        let before = json!({"id": id, "matcher": matcher, "reason": reason});
        Ok(AuditedChange {
            answer: (),
            audit: Some((before, json!({"id": id}))),
            gone: None,
        })
    });
    change.await?;
    Ok(())
}
