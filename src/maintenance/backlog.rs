//! Counts the jobs that wait for their turn and the open dead letters. When either reaches the
//! operator's limit, intake is paused.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::{Backlog, Count, Store};
use crate::telemetry::names;
use crate::worker::IntakeThrottle;

pub(super) struct CountBacklog {
    pub(super) store: Store,
    pub(super) throttle: Arc<IntakeThrottle>,
    pub(super) count: Count,
    /// The rows that this replica had made when the count began.
    pub(super) made: Backlog,
}

impl Duty for CountBacklog {
    const PLAN: Plan = Plan {
        name: "backlog",
        every: Duration::from_secs(2),
        at_most: Duration::from_secs(8),
        late_after: Duration::from_secs(30),
    };

    /// Reads one page of the count.
    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let counted = self
            .store
            .count_backlog(&mut self.count, self.throttle.backlog_limit)
            .await?;
        let Some(counted) = counted else {
            return Ok(true);
        };
        metrics::gauge!(names::OPEN_DEAD_LETTERS).set(f64::from(counted.dead_letters));
        self.throttle.backlog_is(counted, self.made);
        (self.count, self.made) = (Count::default(), self.throttle.made());
        Ok(false)
    }
}
