//! Reads the depth of the intake queue: more messages than the lane completes in a second are a
//! burst, whose messages become rows.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::broker::{INTAKE_QUEUE, Publisher};
use crate::worker::{IntakeThrottle, LaneLimiter};

pub(super) struct LookAtIntake {
    pub(super) publisher: Publisher,
    pub(super) throttle: Arc<IntakeThrottle>,
    /// The limiter whose permits intake uses.
    pub(super) limiter: Arc<LaneLimiter>,
}

impl Duty for LookAtIntake {
    const PLAN: Plan = Plan {
        name: "intake",
        every: Duration::from_millis(200),
        at_most: Duration::from_secs(20),
        late_after: Duration::from_secs(30),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let depth = self.publisher.depth(INTAKE_QUEUE).await?;
        self.throttle.queue_holds(
            depth.ready as usize,
            self.limiter.pace().max(2 * self.limiter.capacity()),
        );
        Ok(false)
    }
}
