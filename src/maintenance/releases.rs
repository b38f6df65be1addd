//! Releases jobs whose cause is gone: a bounded number of jobs of every release each second, until
//! none is left.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::Store;

pub(super) struct Releases(pub(super) Store);

impl Duty for Releases {
    const PLAN: Plan = Plan {
        name: "releases",
        every: Duration::from_secs(1),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(20),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        Ok(self.0.step_releases().await?)
    }
}
