//! Maintains the partitions: makes those of the coming months, moves their rows out of the default
//! partition, and drops old partitions whole.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::Store;

pub(super) struct KeepPartitions(pub(super) Store);

impl Duty for KeepPartitions {
    const PLAN: Plan = Plan {
        name: "partitions",
        every: Duration::from_secs(3600),
        at_most: Duration::from_secs(60),
        late_after: Duration::from_hours(26),
    };

    async fn round(&mut self, now: OffsetDateTime) -> Result<bool, DutyError> {
        Ok(self.0.keep_partitions(now).await?)
    }
}
