//! Frees rows that name this replica as their owner although it does not have them in hand, as
//! after a write whose answer was lost.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::engine::Product;
use crate::job::ReplicaId;
use crate::store::Tables;
use crate::worker::WorkerContext;

pub(super) struct Orphans<P: Product, T: Tables<Changes = P::Changes>> {
    pub(super) context: WorkerContext<P, T>,
    pub(super) replica: ReplicaId,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Duty for Orphans<P, T> {
    const PLAN: Plan = Plan {
        name: "orphans",
        every: Duration::from_secs(2),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(20),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let mut orphans = self.context.store().owned(self.replica).await?;
        // The jobs in hand are read after the rows, because a claim takes its job in hand before
        // it writes the row.
        orphans.retain(|(job, _)| !self.context.running.has(*job));
        for (job, epoch) in orphans {
            if self
                .context
                .store()
                .free_orphan(self.replica, job, epoch)
                .await?
            {
                tracing::warn!(job.id = %job, "a job of this replica was an orphan: no run had it in hand; it is due again");
            }
        }
        Ok(false)
    }
}
