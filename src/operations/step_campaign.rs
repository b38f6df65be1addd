//! Does the next step of a campaign that is due. Each job is acted on as by the operation for one
//! job, with the campaign's actor.

use super::{OperationError, park, retry};
use crate::store::{BulkAction, StepDone, Store, cancel};

/// Does the next step of a campaign, if one is due.
///
/// # Errors
/// [`OperationError::Store`]: nothing is changed then, and the next call repeats the step.
pub async fn step_campaign(store: &Store) -> Result<StepDone, OperationError> {
    let step = store.step_campaign(async |tx, action, actor, job| match action {
        BulkAction::Retry => retry::change(tx, job).await,
        BulkAction::Cancel => cancel(tx, job).await,
        BulkAction::Park => park::change(tx, actor, job).await,
    });
    Ok(step.await?)
}
