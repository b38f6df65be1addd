//! Starts a campaign: a bulk action on a snapshot of jobs.

use super::OperationError;
use crate::store::{Actor, NewCampaign, NotStarted, Started, Store};

/// Makes the snapshot of a campaign, which begins 10 s later. The actor needs a reason.
///
/// # Errors
/// [`OperationError::Invalid`] if the filter or a number is not valid,
/// [`OperationError::NotPossible`] if there is nothing to do, too many campaigns are open or more
/// duplicates must be accepted. Nothing is changed then.
pub async fn start_campaign(
    store: &Store,
    actor: &Actor,
    new: &NewCampaign,
) -> Result<Started, OperationError> {
    store.start_campaign(actor, new).await?.map_err(not_started)
}

pub(super) fn not_started(why: NotStarted) -> OperationError {
    match why {
        NotStarted::Filter(_) | NotStarted::OutOfRange { .. } => {
            OperationError::Invalid(why.to_string())
        }
        NotStarted::NoJobs | NotStarted::Duplicates { .. } | NotStarted::TooMany(_) => {
            OperationError::NotPossible(why.to_string())
        }
    }
}
