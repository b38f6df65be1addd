//! Writes failure groups for people: which failures there are, and since when.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::{SightingCursor, Store};

pub(super) struct SeeFailures {
    pub(super) store: Store,
    pub(super) cursor: SightingCursor,
}

impl Duty for SeeFailures {
    const PLAN: Plan = Plan {
        name: "failures",
        every: Duration::from_secs(5),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(120),
    };

    async fn round(&mut self, now: OffsetDateTime) -> Result<bool, DutyError> {
        Ok(self.store.see_failures(now, &mut self.cursor).await?)
    }
}
