//! Releases jobs whose hold is over, destination by destination, a few more in each round.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::{HoldCursor, Store};

pub(super) struct AfterHolds {
    pub(super) store: Store,
    /// The position of the pass over all holds.
    pub(super) at: HoldCursor,
}

impl Duty for AfterHolds {
    const PLAN: Plan = Plan {
        name: "holds",
        every: Duration::from_secs(1),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(20),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        Ok(self.store.step_after_holds(&mut self.at).await?)
    }
}
