//! Discards the dead letters that match a filter, page by page. The audit log gets a row for each
//! dead letter, and one before the first and one after the last for the action.

use serde_json::{Value, json};

use super::OperationError;
use crate::store::{Action, Actor, ChosenLetters, Store};

/// Discards the chosen dead letters until none is left or the filter's limit is reached, and
/// returns their number. After each page but the last, `progress` receives how many were discarded
/// so far, and up to which number.
///
/// # Errors
/// [`OperationError::Store`]. What was discarded before stays discarded and no longer matches, so
/// the action can be repeated unchanged.
pub async fn discard_many(
    store: &Store,
    actor: &Actor,
    chosen: &ChosenLetters,
    mut progress: impl FnMut(u64, i64),
) -> Result<u64, OperationError> {
    let filter = json!(chosen.filter());
    store
        .audit(actor, Action::DiscardManyDeadLetters, &Value::Null, &filter)
        .await?;
    let limit = chosen.filter().limit.map(u64::from);
    let (mut after, mut letters) = (0, 0);
    loop {
        let left = limit.map(|limit| limit.saturating_sub(letters));
        let page = store.discard_page(chosen, after, left, actor).await?;
        letters += page.letters;
        let is_full = limit.is_some_and(|limit| letters >= limit);
        let Some(next) = page.next.filter(|_| !is_full) else {
            break;
        };
        progress(letters, next);
        after = next;
    }
    let done = json!({"discarded": letters});
    store
        .audit(actor, Action::DiscardedManyDeadLetters, &filter, &done)
        .await?;
    Ok(letters)
}
