//! Pauses a campaign.

use super::OperationError;
use crate::store::{Actor, CampaignChange, CampaignResult, Store};

/// Pauses a campaign: no further job is acted on until it is resumed.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn pause_campaign(
    store: &Store,
    actor: &Actor,
    campaign: i64,
) -> Result<CampaignResult, OperationError> {
    Ok(store
        .change_campaign(actor, campaign, CampaignChange::Pause)
        .await?)
}
