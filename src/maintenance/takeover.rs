//! Ends dead replicas and takes over their jobs. It needs only Postgres: the jobs get the next
//! permits of this replica, and their rows are due, so the wakers of all replicas find them.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::engine::Product;
use crate::job::ReplicaId;
use crate::store::Tables;
use crate::telemetry::names;
use crate::worker::{LaneLimiter, WorkerContext};

pub(super) struct Takeover<P: Product, T: Tables<Changes = P::Changes>> {
    pub(super) context: WorkerContext<P, T>,
    pub(super) replica: ReplicaId,
    pub(super) limiters: Vec<Arc<LaneLimiter>>,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Duty for Takeover<P, T> {
    const PLAN: Plan = Plan {
        name: "takeover",
        every: Duration::from_millis(200),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(10),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let freed = self.context.store().free_dead(self.replica).await?;
        let jobs = freed.due.len() + freed.parked;
        if !freed.replicas.is_empty() || jobs > 0 {
            metrics::counter!(names::TAKEOVERS).increment(jobs as u64);
            tracing::warn!(replicas = ?freed.replicas, jobs, parked = freed.parked, "took over the jobs of dead replicas");
        }
        for limiter in &self.limiters {
            let ours = |pipeline: &str| {
                self.context
                    .registry
                    .get(pipeline)
                    .is_some_and(|known| known.lane == limiter.lane)
            };
            limiter.take_over(
                freed
                    .due
                    .iter()
                    .filter(|(_, pipeline)| ours(pipeline))
                    .map(|(job, _)| *job),
            );
        }
        Ok(jobs > 0)
    }
}
