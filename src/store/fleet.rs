//! The fleet for people: the running replicas with what each measured last, and the lanes with
//! their jobs, permits and consumers.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::load::PipelineLoad;
use super::replicas::ReplicaRow;
use super::samples::SampleRow;
use super::scale::Scale;
use super::stuck::PipelineLanes;
use crate::telemetry::names;

/// The jobs that a replica runs at the same time on a lane of which no sample is left: the default
/// of the smaller lanes.
const USUAL_PERMITS: u64 = 16;

/// A running replica, with its newest sample.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FleetReplica {
    #[serde(flatten)]
    pub row: ReplicaRow,
    /// When the newest sample was stored; `None` if it has stored none lately. The fields below
    /// are those of the sample.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub sampled_at: Option<OffsetDateTime>,
    /// Permits in use, of all lanes.
    pub permits_used: u64,
    /// Permits, of all lanes.
    pub permits: u64,
    /// The checks of `/readyz` that failed.
    pub not_ready: Vec<String>,
    /// Lanes whose consumer was not connected, or received nothing although there were messages.
    pub deaf: Vec<String>,
    /// Whether the link to RabbitMQ, over which it publishes, was down.
    pub rabbitmq_away: bool,
    /// Why intake was paused.
    pub intake_paused: Option<String>,
}

/// A lane with its jobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct LaneRow {
    pub lane: String,
    pub pipeline: String,
    /// Permits in use, of all replicas.
    pub permits_used: u64,
    /// Permits, of all replicas.
    pub permits: u64,
    /// Replicas that take new jobs of the lane and receive its messages.
    pub consumers: u64,
    /// Messages of the lane's queue that no consumer has received.
    pub queued: u64,
    /// Ready jobs, due or not.
    pub ready: CappedCount,
    /// Jobs that are due and have no wake-up.
    pub due: CappedCount,
    /// How long the oldest of them has been due, in seconds.
    pub oldest_due_seconds: f64,
    pub running: CappedCount,
    pub waiting: CappedCount,
    /// Waiting jobs that only a vendor, or a person at a vendor, can continue.
    pub waits_on_vendor: CappedCount,
    pub parked: CappedCount,
    /// Why a replica takes no new messages into the lane; only of the lane of intake.
    pub intake_paused: Option<String>,
}

/// The lanes, and the number of replicas that their jobs need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Lanes {
    pub lanes: Vec<LaneRow>,
    pub scale: Scale,
}

impl Store {
    /// Returns the running replicas, each with its newest sample.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn fleet(&self) -> Result<Vec<FleetReplica>, StoreError> {
        let rows = self.replicas().await?;
        let samples = self.newest_samples().await?;
        let with_sample = |row: ReplicaRow| {
            let sample = samples.iter().find(|sample| sample.replica == row.id);
            FleetReplica::of(row, sample)
        };
        Ok(rows.into_iter().map(with_sample).collect())
    }

    /// Returns the lanes of these pipelines.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lanes(&self, of: &PipelineLanes) -> Result<Lanes, StoreError> {
        let loads = self.load(of.pipelines.iter().map(String::as_str)).await?;
        let rows = self.replicas().await?;
        let samples = self.newest_samples().await?;
        let live: BTreeSet<i64> = rows.iter().map(|row| row.id).collect();
        let mut lanes = Vec::with_capacity(of.lanes.len());
        let mut parts = Vec::with_capacity(of.lanes.len());
        for (at, (pipeline, lane)) in of.pipelines.iter().zip(&of.lanes).enumerate() {
            let load = loads.get(pipeline.as_str()).copied().unwrap_or_default();
            let mut row = LaneRow::of(pipeline, lane, &load);
            for sample in samples.iter().filter(|one| live.contains(&one.replica)) {
                row.add(sample, &of.queues[at], at == 0);
            }
            row.consumers = consumers(lane, &rows, &samples);
            parts.push((load, permits_of_one(lane, &samples)));
            lanes.push(row);
        }
        let scale = Scale::of(&parts);
        Ok(Lanes { lanes, scale })
    }
}

impl FleetReplica {
    fn of(row: ReplicaRow, sample: Option<&SampleRow>) -> Self {
        let data = sample.map(|sample| sample.data.clone());
        let sampled_at = sample.map(|sample| sample.at);
        let data = data.unwrap_or_default();
        let permits = |metric| {
            let lanes = row.lanes.iter();
            lanes
                .map(|lane| whole(data.gauge(metric, "lane", lane)))
                .sum()
        };
        let deaf = data.not_ready.iter();
        let deaf = deaf.filter_map(|check| check.strip_prefix("lane_"));
        Self {
            sampled_at,
            permits_used: permits(names::PERMITS_USED),
            permits: permits(names::PERMITS),
            deaf: deaf.map(str::to_owned).collect(),
            rabbitmq_away: data.not_ready.iter().any(|check| check == "publisher"),
            intake_paused: data.intake_paused,
            not_ready: data.not_ready,
            row,
        }
    }
}

impl LaneRow {
    fn of(pipeline: &str, lane: &str, load: &PipelineLoad) -> Self {
        Self {
            lane: lane.to_owned(),
            pipeline: pipeline.to_owned(),
            ready: CappedCount::of(load.not_woken + load.woken),
            due: CappedCount::of(load.due),
            oldest_due_seconds: load.oldest_due,
            running: CappedCount::among(load.running, !load.is_part_of_running),
            waiting: CappedCount::among(load.waiting, !load.is_part_of_waiting),
            waits_on_vendor: CappedCount::among(load.waits_on_vendor, !load.is_part_of_waiting),
            parked: CappedCount::among(load.parked, !load.is_part_of_parked),
            ..Self::default()
        }
    }

    fn add(&mut self, sample: &SampleRow, queue: &str, takes_intake: bool) {
        let data = &sample.data;
        self.permits_used += whole(data.gauge(names::PERMITS_USED, "lane", &self.lane));
        self.permits += whole(data.gauge(names::PERMITS, "lane", &self.lane));
        // The newest sample comes last, and every replica sees the same queue.
        self.queued = whole(data.gauge(names::QUEUE_MESSAGES, "queue", queue));
        if takes_intake && data.intake_paused.is_some() {
            self.intake_paused.clone_from(&data.intake_paused);
        }
    }
}

/// Returns how many replicas take new jobs of a lane. One without a sample counts.
fn consumers(lane: &str, rows: &[ReplicaRow], samples: &[SampleRow]) -> u64 {
    let check = format!("lane_{lane}");
    let is_deaf = |row: &ReplicaRow| {
        let sample = samples.iter().find(|sample| sample.replica == row.id);
        sample.is_some_and(|sample| sample.data.not_ready.contains(&check))
    };
    rows.iter()
        .filter(|row| !row.draining && row.lanes.iter().any(|one| one == lane) && !is_deaf(row))
        .count() as u64
}

/// Returns how many jobs of a lane one replica runs at the same time, as the newest sample that
/// states it.
fn permits_of_one(lane: &str, samples: &[SampleRow]) -> u64 {
    let permits = |sample: &SampleRow| whole(sample.data.gauge(names::PERMITS, "lane", lane));
    let known = samples.iter().rev().map(permits).find(|n| *n > 0);
    known.unwrap_or(USUAL_PERMITS)
}

/// Returns a gauge that counts.
fn whole(gauge: f64) -> u64 {
    gauge.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::store::SampleData;

    const AT: OffsetDateTime = datetime!(2026-01-01 12:00:00 UTC);

    fn replica(id: i64) -> ReplicaRow {
        ReplicaRow {
            id,
            version: "1".to_owned(),
            host: "h".to_owned(),
            pid: 1,
            started_at: AT,
            lease_until: AT,
            lanes: vec!["dispatch".to_owned(), "messaging".to_owned()],
            running: 0,
            draining: false,
        }
    }

    fn sample(replica: i64, not_ready: &[&str]) -> SampleRow {
        let gauges = [
            (r#"dispatch_permits{lane="dispatch"}"#, 32.0),
            (r#"dispatch_permits{lane="messaging"}"#, 4.0),
            (r#"dispatch_permits_used{lane="messaging"}"#, 3.0),
            (
                r#"dispatch_queue_messages{queue="dispatch.messaging"}"#,
                9.0,
            ),
        ];
        SampleRow {
            at: AT,
            replica,
            data: SampleData {
                not_ready: not_ready.iter().map(|&check| check.to_owned()).collect(),
                gauges: gauges.map(|(name, n)| (name.to_owned(), n)).into(),
                ..SampleData::default()
            },
        }
    }

    #[test]
    fn a_replica_has_the_permits_and_the_faults_of_its_sample() {
        let of = sample(7, &["publisher", "lane_messaging", "duty_load"]);
        let shown = FleetReplica::of(replica(7), Some(&of));
        assert_eq!((shown.permits_used, shown.permits), (3, 36));
        assert_eq!(shown.deaf, ["messaging"]);
        assert!(shown.rabbitmq_away);
        let new = FleetReplica::of(replica(8), None);
        assert_eq!((new.sampled_at, new.permits), (None, 0));
    }

    #[test]
    fn a_lane_is_consumed_by_replicas_that_hear_it_and_do_not_drain() {
        let mut rows = [replica(1), replica(2), replica(3), replica(4)];
        rows[1].draining = true;
        rows[2].lanes = vec!["dispatch".to_owned()];
        let samples = [sample(1, &[]), sample(4, &["lane_messaging"])];
        assert_eq!(consumers("messaging", &rows, &samples), 1);
        assert_eq!(consumers("dispatch", &rows, &samples), 3);
    }

    #[test]
    fn the_permits_of_samples_are_added_and_their_queue_is_not() {
        let mut lane = LaneRow {
            lane: "messaging".to_owned(),
            ..LaneRow::default()
        };
        lane.add(&sample(1, &[]), "dispatch.messaging", false);
        lane.add(&sample(2, &[]), "dispatch.messaging", false);
        assert_eq!((lane.permits_used, lane.permits, lane.queued), (6, 8, 9));
        assert_eq!(permits_of_one("messaging", &[sample(1, &[])]), 4);
        assert_eq!(permits_of_one("messaging", &[]), USUAL_PERMITS);
    }
}
