//! The waker: publishes wake-ups for rows that are due and not stamped, organizations in turn, and
//! again for rows whose wake-up no replica has claimed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::engine::Product;
use crate::job::{JobId, ReplicaId};
use crate::store::{Circle, StoreError, Tables};
use crate::worker::{LaneLimiter, WorkerContext};

/// A wake-up without a claim is published again after this time if its queue is empty.
const STALE: Duration = Duration::from_secs(5);
/// A wake-up without a claim is published again after this time whatever its queue holds.
const STALE_ANYHOW: Duration = Duration::from_secs(600);
/// The most pages read in one round: a circle of many organizations without due rows takes
/// several.
const LOOKS: usize = 64;

pub(super) struct Due<P: Product, T: Tables<Changes = P::Changes>> {
    pub(super) context: WorkerContext<P, T>,
    pub(super) replica: ReplicaId,
    pub(super) limiters: Vec<Arc<LaneLimiter>>,
    /// The position in each pipeline's circle of organizations.
    pub(super) circles: HashMap<&'static str, Circle>,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Duty for Due<P, T> {
    const PLAN: Plan = Plan {
        name: "due",
        every: Duration::from_millis(200),
        at_most: Duration::from_secs(20),
        late_after: Duration::from_secs(10),
    };

    /// Wakes every lane. A queue whose depth cannot be read does not delay the others for long;
    /// the round returns the last error.
    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let stamping = self.context.stamps.while_stamping();
        let mut met = Ok(false);
        for limiter in self.limiters.clone() {
            if let Err(error) = self.wake_lane(&limiter).await {
                met = Err(error);
            }
        }
        stamping.done();
        met
    }
}

impl<P: Product, T: Tables<Changes = P::Changes>> Due<P, T> {
    /// Fills the lane's queue up to twice the lane's capacity, or to what the lane completes in
    /// two rounds, whichever is more. The rest of a backlog stays in Postgres, where its order can
    /// still be fair.
    async fn wake_lane(&mut self, limiter: &LaneLimiter) -> Result<(), DutyError> {
        let depth = self.context.publisher.depth(limiter.lane.queue).await?;
        let soon = limiter.pace() * 2 * Self::PLAN.every.as_millis() as usize / 1000;
        let room = soon
            .max(2 * limiter.capacity())
            .saturating_sub(depth.ready as usize);
        if room == 0 {
            return Ok(());
        }
        let stale = if depth.ready == 0 {
            STALE
        } else {
            STALE_ANYHOW
        };
        let registry = Arc::clone(&self.context.registry);
        for pipeline in registry
            .iter()
            .filter(|pipeline| pipeline.lane == limiter.lane)
        {
            self.wake_due(pipeline.name, room).await?;
            let limit = i64::try_from(room).unwrap_or(i64::MAX);
            let stale = self
                .context
                .store()
                .take_stale(pipeline.name, limit, stale, self.replica)
                .await;
            self.publish(pipeline.name, stale).await?;
        }
        Ok(())
    }

    /// Wakes due rows of a pipeline, at most once around the circle of organizations.
    async fn wake_due(&mut self, pipeline: &'static str, room: usize) -> Result<(), DutyError> {
        let mut left = room;
        let mut is_whole = self.circles.get(pipeline).is_none_or(Circle::begins);
        for _ in 0..LOOKS {
            let limit = i64::try_from(left).unwrap_or(i64::MAX);
            let circle = self.circles.entry(pipeline).or_default();
            let page = self
                .context
                .store()
                .take_due(pipeline, limit, self.replica, circle)
                .await;
            let ends_circle = page.as_ref().is_ok_and(|page| page.ends_circle);
            left = left.saturating_sub(self.publish(pipeline, page.map(|page| page.jobs)).await?);
            if left == 0 || (ends_circle && is_whole) {
                return Ok(());
            }
            // A circle that was begun in the middle is read once more, from its start.
            is_whole |= ends_circle;
        }
        Ok(())
    }

    /// Publishes wake-ups for the rows that were stamped. If the answer was lost, it is not known
    /// which rows those are: every stamp of this replica is in doubt.
    async fn publish(
        &self,
        pipeline: &str,
        stamped: Result<Vec<JobId>, StoreError>,
    ) -> Result<usize, StoreError> {
        let stamped = stamped.inspect_err(|_| self.context.stamps.doubt_all())?;
        let wake: Vec<_> = stamped
            .into_iter()
            .map(|job| (job, pipeline.to_owned()))
            .collect();
        self.context.wake(&wake).await;
        Ok(wake.len())
    }
}
