//! Publishes outcome events and replies whose writers have not published them.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, Plan, Trouble};
use crate::engine::Product;
use crate::store::Tables;
use crate::worker::{Parts, announce};

/// See the module.
pub(super) struct Events<P: Product, T: Tables<Changes = P::Changes>>(pub(super) Parts<P, T>);

impl<P: Product, T: Tables<Changes = P::Changes>> Duty for Events<P, T> {
    const PLAN: Plan = Plan {
        name: "events",
        every: Duration::from_millis(200),
        at_most: Duration::from_secs(30),
        late_after: Duration::from_secs(60),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, Trouble> {
        let due = self.0.store().due_announcements().await?;
        announce(&self.0.publisher, &self.0.writer, &due).await;
        Ok(false)
    }
}
