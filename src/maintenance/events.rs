//! Publishes outcome events and replies whose rows are due, because their writers did not publish
//! them or they are to be repeated.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::worker::DueAnnouncements;

pub(super) struct Events(pub(super) DueAnnouncements);

impl Duty for Events {
    const PLAN: Plan = Plan {
        name: "events",
        every: Duration::from_millis(200),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(30),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        Ok(self.0.publish_due().await?)
    }
}
