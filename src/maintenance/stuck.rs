//! Counts the jobs that do not move, one code in each round, for the gauge `dispatch_stuck`.

use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::{PipelineLanes, Store, StuckCode};
use crate::telemetry::names;

pub(super) struct CountStuck {
    store: Store,
    lanes: PipelineLanes,
    /// Position of the next code.
    at: usize,
}

impl CountStuck {
    /// Sets every code to 0, so that the series exist from the start.
    pub(super) fn new(store: Store, lanes: PipelineLanes) -> Self {
        for code in StuckCode::ALL {
            metrics::gauge!(names::STUCK, "code" => code.word()).set(0.0);
        }
        Self {
            store,
            lanes,
            at: 0,
        }
    }
}

impl Duty for CountStuck {
    const PLAN: Plan = Plan {
        name: "stuck",
        every: Duration::from_secs(15),
        at_most: Duration::from_secs(10),
        late_after: Duration::from_secs(120),
    };

    /// Counts one code. After one that fails, the next run begins with the following code.
    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let Some(code) = StuckCode::ALL.get(self.at).copied() else {
            self.at = 0;
            return Ok(false);
        };
        self.at += 1;
        let counted = self.store.stuck_code(code, &self.lanes).await?.count;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a capped count is at most 10,000"
        )]
        let jobs = counted.map_or(0.0, |count| count.at_least() as f64);
        metrics::gauge!(names::STUCK, "code" => code.word()).set(jobs);
        Ok(true)
    }
}
