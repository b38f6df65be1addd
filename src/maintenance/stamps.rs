//! Takes back stamps of wake-ups that may not have been published: those of this replica that are
//! in doubt, and those of replicas that have ended.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::engine::Product;
use crate::job::ReplicaId;
use crate::store::Tables;
use crate::worker::WorkerContext;

pub(super) struct TakeBack<P: Product, T: Tables<Changes = P::Changes>> {
    pub(super) context: WorkerContext<P, T>,
    pub(super) replica: ReplicaId,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Duty for TakeBack<P, T> {
    const PLAN: Plan = Plan {
        name: "stamps",
        every: Duration::from_millis(500),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(15),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let store = self.context.store();
        let more = self.context.stamps.take_back(store, self.replica).await?;
        Ok(store.unstamp_ended().await? || more)
    }
}
