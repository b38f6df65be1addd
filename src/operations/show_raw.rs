//! Shows the body of a dead letter as it was received, which may contain secrets.

use serde_json::{Value, json};

use super::OperationError;
use crate::store::{Action, Actor, Store};

/// Records that the body is about to be shown; called before it is shown, so that every access is
/// recorded.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn show_raw(store: &Store, actor: &Actor, id: i64) -> Result<(), OperationError> {
    let shown = json!({"dead_letter_id": id});
    Ok(store
        .audit(actor, Action::ShowRawDeadLetter, &Value::Null, &shown)
        .await?)
}
