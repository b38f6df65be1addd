//! Discards a dead letter.

use super::OperationError;
use crate::store::{Actor, Resolution, Store};

/// Discards an open dead letter by its number.
///
/// # Errors
/// [`OperationError::Unknown`] if no open dead letter has the number, and
/// [`OperationError::Store`].
pub async fn discard(store: &Store, actor: &Actor, id: i64) -> Result<(), OperationError> {
    if store.resolve(id, Resolution::Discarded, actor).await? {
        return Ok(());
    }
    Err(OperationError::Unknown(
        "there is no open dead letter with this number".to_owned(),
    ))
}
