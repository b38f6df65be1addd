//! Asks a worker to publish a dead letter again. The request is a row, so it needs no connection to
//! RabbitMQ.

use serde_json::Value;

use super::OperationError;
use crate::broker::{KEY_CANCEL, KEY_CONFIGURE, KEY_JOB};
use crate::secrets::Keyring;
use crate::store::{Action, Actor, AuditedChange, DeadLetter, NotReplayable, Store, want_replay};

/// Asks for a replay. Returns what the audit log says before and after; `None` if somebody has
/// asked already.
///
/// # Errors
/// [`OperationError::Unknown`] if there is no such letter, [`OperationError::NotPossible`] if it
/// cannot be published, and [`OperationError::Store`].
pub async fn ask_for_replay(
    store: &Store,
    keyring: &Keyring,
    actor: &Actor,
    id: i64,
) -> Result<Option<(Value, Value)>, OperationError> {
    actor.permit(Action::ReplayDeadLetter)?;
    let letter = letter(store, keyring, id).await?;
    if let Some(why) = replay_obstacle(&letter) {
        return Err(OperationError::NotPossible(why));
    }
    if letter.row.replay_wanted_at.is_some() {
        return Ok(None);
    }
    let (states, _) = store
        .audited(actor, Action::ReplayDeadLetter, async |tx| {
            let states = want_replay(tx, actor, id).await?;
            Ok::<_, OperationError>(AuditedChange {
                answer: states.clone(),
                audit: states,
                gone: None,
            })
        })
        .await?;
    Ok(states)
}

/// Returns why a dead letter cannot be published again by a worker, and what to do instead; `None`
/// if it can.
#[must_use]
pub fn replay_obstacle(letter: &DeadLetter) -> Option<String> {
    if let Some(why) = resolved(letter) {
        return Some(why);
    }
    if let Err(why) = letter.whole_body() {
        return Some(why.to_string());
    }
    let key = letter.row.routing_key.as_str();
    let is_known = [KEY_JOB, KEY_CONFIGURE, KEY_CANCEL].contains(&key);
    (!is_known).then(|| {
        format!(
            "expected the routing key {KEY_JOB}, {KEY_CONFIGURE} or {KEY_CANCEL}, got {key:?}, for which there is no queue; have \
             its producer publish it again"
        )
    })
}

/// Returns that a letter is resolved already.
pub(super) fn resolved(letter: &DeadLetter) -> Option<String> {
    letter.row.resolved_at?;
    let how = letter.row.resolution.as_deref().unwrap_or("resolved");
    Some(NotReplayable::Resolved(how.to_owned()).to_string())
}

/// Reads a dead letter that must be there.
pub(super) async fn letter(
    store: &Store,
    keyring: &Keyring,
    id: i64,
) -> Result<DeadLetter, OperationError> {
    let letter = store.dead_letter(keyring, id).await?;
    letter.ok_or_else(|| OperationError::Unknown(NotReplayable::NoSuchLetter.to_string()))
}
