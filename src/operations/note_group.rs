//! Notes what people know about a failure group: its owner, a note, that it is muted or resolved.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::OperationError;
use crate::store::{Action, Actor, AuditedChange, Store, StoreError, query_opt};

/// Maximum number of characters of an owner.
const OWNER: usize = 64;
/// Maximum number of characters of a note.
const NOTE: usize = 2000;

/// The changes of a failure group; `None` leaves what is stored.
#[derive(Debug, Clone, Default)]
pub struct GroupNote {
    /// The person or team that deals with it; an empty text removes the owner.
    pub owner: Option<String>,
    /// An empty text removes the note.
    pub note: Option<String>,
    /// Until when it is muted; a time that is over ends the muting.
    pub muted_until: Option<OffsetDateTime>,
    /// Whether it is resolved now. A resolved group that is seen again has regressed.
    pub resolved: Option<bool>,
}

const LOCK: &str = "
    SELECT owner, note, muted_until::text AS muted_until, resolved_at::text AS resolved_at
    FROM failure_groups WHERE fingerprint = $1 FOR UPDATE";

/// Returns the changed columns. A group that is resolved again is resolved from now on.
const CHANGE: &str = "
    UPDATE failure_groups SET owner = CASE WHEN $2::text IS NULL THEN owner ELSE nullif($2, '') END,
        note = CASE WHEN $3::text IS NULL THEN note ELSE nullif($3, '') END,
        muted_until = CASE WHEN $4::timestamptz IS NULL THEN muted_until WHEN $4 > now() THEN $4 END,
        resolved_at = CASE WHEN $5::bool IS NULL THEN resolved_at WHEN NOT $5 THEN NULL
            WHEN resolved_at >= last_seen_at THEN resolved_at ELSE now() END
    WHERE fingerprint = $1
    RETURNING owner, note, muted_until::text AS muted_until, resolved_at::text AS resolved_at";

/// Changes what is noted about a failure group. Returns whether anything has changed.
///
/// # Errors
/// [`OperationError::Invalid`] for a text that is too long; [`OperationError::Unknown`] for a
/// fingerprint that no group has; [`OperationError::Store`].
pub async fn note_group(
    store: &Store,
    actor: &Actor,
    fingerprint: &str,
    changes: &GroupNote,
) -> Result<bool, OperationError> {
    at_most("owner", changes.owner.as_deref(), OWNER)?;
    at_most("note", changes.note.as_deref(), NOTE)?;
    let change = store.audited(actor, Action::NoteFailureGroup, async |tx| {
        let before = query_opt(tx, LOCK, &[&fingerprint]).await?;
        let before = noted(before.as_ref(), fingerprint)?;
        let after = query_opt(
            tx,
            CHANGE,
            &[
                &fingerprint,
                &changes.owner,
                &changes.note,
                &changes.muted_until,
                &changes.resolved,
            ],
        )
        .await?;
        let after = noted(after.as_ref(), fingerprint)?;
        let has_changed = before != after;
        Ok::<_, OperationError>(AuditedChange {
            answer: has_changed,
            audit: has_changed.then_some((before, after)),
            gone: None,
        })
    });
    Ok(change.await?.0)
}

/// Returns the row of a group for the audit log.
fn noted(row: Option<&tokio_postgres::Row>, fingerprint: &str) -> Result<Value, OperationError> {
    let Some(row) = row else {
        return Err(OperationError::Unknown(format!(
            "there is no failure group `{fingerprint}`; use a fingerprint from `dispatch failures list`"
        )));
    };
    let column = |name| {
        row.try_get::<_, Option<String>>(name)
            .map_err(StoreError::from)
    };
    Ok(json!({
        "fingerprint": fingerprint,
        "owner": column("owner")?,
        "note": column("note")?,
        "muted_until": column("muted_until")?,
        "resolved_at": column("resolved_at")?,
    }))
}

fn at_most(what: &str, text: Option<&str>, most: usize) -> Result<(), OperationError> {
    let characters = text.map_or(0, |text| text.chars().count());
    if characters <= most {
        return Ok(());
    }
    Err(OperationError::Invalid(format!(
        "expected at most {most} characters for the {what}, got {characters}; use a shorter text"
    )))
}
