//! Resumes a campaign.

use super::OperationError;
use crate::store::{Actor, CampaignChange, CampaignResult, Store};

/// Resumes a paused campaign. It continues with waves of 1 and 10 jobs.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn resume_campaign(
    store: &Store,
    actor: &Actor,
    campaign: i64,
) -> Result<CampaignResult, OperationError> {
    Ok(store
        .change_campaign(actor, campaign, CampaignChange::Resume)
        .await?)
}
