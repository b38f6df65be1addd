//! Measures how much work there is: open jobs by lane and state, what is due, the number of
//! replicas that it needs, and the room that is left in the database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;
use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::store::{LaneLoad, PipelineLoad, Store, desired_replicas};
use crate::telemetry::names;
use crate::worker::LaneLimiter;

/// How often the database as a whole is measured.
const DATABASE_EVERY: Duration = Duration::from_secs(60);

pub(super) struct MeasureLoad {
    pub(super) store: Store,
    /// Each pipeline, with the limiter of its lane.
    pub(super) pipelines: Vec<(&'static str, Arc<LaneLimiter>)>,
    /// When the database was last measured.
    pub(super) database_at: Option<Instant>,
}

impl Duty for MeasureLoad {
    const PLAN: Plan = Plan {
        name: "load",
        every: Duration::from_secs(10),
        at_most: Duration::from_secs(20),
        late_after: Duration::from_secs(120),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let names = self.pipelines.iter().map(|(pipeline, _)| *pipeline);
        let loads = self.store.load(names).await?;
        let mut lanes = Vec::new();
        for (pipeline, limiter) in &self.pipelines {
            let load = loads.get(pipeline).copied().unwrap_or_default();
            show(limiter.lane.name, &load);
            gauge!(names::PERMITS_USED, "lane" => limiter.lane.name).set(limiter.in_use() as f64);
            let lane = load.of_lane(limiter.capacity() as u64);
            show_parts(limiter.lane.name, &lane, load.waits_on_vendor);
            lanes.push(lane);
        }
        gauge!(names::DESIRED_REPLICAS).set(desired_replicas(&lanes) as f64);
        if self
            .database_at
            .is_none_or(|at| at.elapsed() >= DATABASE_EVERY)
        {
            let database = self.store.database_load().await?;
            gauge!(names::OLDEST_HOLD_SECONDS).set(database.oldest_hold);
            gauge!(names::MISSING_PARTITIONS).set(database.missing_partitions as f64);
            gauge!(names::DATABASE_BYTES).set(database.bytes as f64);
            self.database_at = Some(Instant::now());
        }
        Ok(false)
    }
}

fn show(lane: &'static str, load: &PipelineLoad) {
    for (state, n) in [
        ("ready", load.not_woken + load.woken),
        ("running", load.running),
        ("waiting", load.waiting),
        ("parked", load.parked),
    ] {
        gauge!(names::OPEN_JOBS, "lane" => lane, "state" => state).set(n as f64);
    }
    gauge!(names::DUE_JOBS, "lane" => lane).set(load.due as f64);
    gauge!(names::OLDEST_DUE_SECONDS, "lane" => lane).set(load.oldest_due);
}

fn show_parts(lane: &'static str, load: &LaneLoad, waits_on_vendor: i64) {
    for (part, n) in [
        ("ready", load.ready as f64),
        ("in_flight", load.in_flight as f64),
        ("due_60s", load.due_60s as f64),
        ("waits_on_vendor", waits_on_vendor as f64),
    ] {
        gauge!(names::SCALE_JOBS, "lane" => lane, "part" => part).set(n);
    }
}
