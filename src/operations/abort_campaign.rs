//! Aborts a campaign.

use super::OperationError;
use crate::store::{Actor, CampaignChange, CampaignResult, Store};

/// Aborts a campaign. The jobs that were acted on keep what was done.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn abort_campaign(
    store: &Store,
    actor: &Actor,
    campaign: i64,
) -> Result<CampaignResult, OperationError> {
    Ok(store
        .change_campaign(actor, campaign, CampaignChange::Abort)
        .await?)
}
