//! Parks jobs whose deadline passes while they wait, other than for their follow-ups.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::Store;

pub(super) struct Deadlines(pub(super) Store);

impl Duty for Deadlines {
    const PLAN: Plan = Plan {
        name: "deadlines",
        every: Duration::from_secs(5),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(30),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        Ok(self.0.park_overdue().await?)
    }
}
