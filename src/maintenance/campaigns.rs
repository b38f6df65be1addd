//! Carries out campaigns, a step at a time, on whichever replica comes first.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::operations::step_campaign;
use crate::store::{StepDone, Store};

pub(super) struct Campaigns(pub(super) Store);

impl Duty for Campaigns {
    const PLAN: Plan = Plan {
        name: "campaigns",
        every: Duration::from_secs(1),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(60),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        match step_campaign(&self.0).await? {
            StepDone::Nothing => return Ok(false),
            StepDone::More => {}
            StepDone::Paused(campaign, why) => {
                tracing::warn!(
                    campaign.id = campaign,
                    why,
                    "a campaign was paused: too many of its jobs failed again"
                );
            }
            StepDone::Finished(campaign) => {
                tracing::info!(campaign.id = campaign, "a campaign is finished");
            }
        }
        Ok(true)
    }
}
