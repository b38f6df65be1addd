//! How many replicas the work that replicas can do now needs.

use schemars::JsonSchema;
use serde::Serialize;

use super::load::PipelineLoad;

/// The number of replicas needed, and the jobs from which it follows, of all lanes together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Scale {
    /// Replicas needed, at least one.
    pub desired: u64,
    /// Jobs that are ready and due.
    pub ready: u64,
    /// Jobs that run.
    pub in_flight: u64,
    /// Jobs that will be due within 60 s.
    pub due_60s: u64,
    /// Jobs that only a vendor, or a person at a vendor, can continue; they are not counted for
    /// `desired`.
    pub waits_on_vendor: u64,
}

/// The jobs of a lane, and how many of them one replica runs at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneLoad {
    /// Jobs that are ready and due, with a wake-up or without.
    pub ready: u64,
    /// Jobs that run.
    pub in_flight: u64,
    /// Jobs that will be due within 60 s.
    pub due_60s: u64,
    /// The concurrency limit of the lane on one replica.
    pub capacity: u64,
}

/// Returns the number of replicas whose lanes run all of the work at the same time: that of the
/// lane that needs most, and at least one. Jobs that wait on a vendor are no part of a
/// [`LaneLoad`]: more replicas would not finish them sooner.
#[must_use]
pub fn desired_replicas(lanes: &[LaneLoad]) -> u64 {
    let needed = lanes
        .iter()
        .map(|lane| (lane.ready + lane.in_flight + lane.due_60s).div_ceil(lane.capacity.max(1)));
    needed.max().unwrap_or_default().max(1)
}

impl PipelineLoad {
    /// Returns the jobs of the pipeline's lane, of which a replica runs `capacity` at the same time.
    #[must_use]
    pub fn of_lane(&self, capacity: u64) -> LaneLoad {
        LaneLoad {
            ready: (self.due + self.woken).unsigned_abs(),
            in_flight: self.running.unsigned_abs(),
            due_60s: self.due_soon.unsigned_abs(),
            capacity,
        }
    }
}

impl Scale {
    /// Returns the scale for the loads of the lanes, each with the jobs that one replica runs at the
    /// same time.
    #[must_use]
    pub fn of(loads: &[(PipelineLoad, u64)]) -> Self {
        let lanes: Vec<LaneLoad> = loads
            .iter()
            .map(|(load, capacity)| load.of_lane(*capacity))
            .collect();
        let sum = |part: fn(&LaneLoad) -> u64| lanes.iter().map(part).sum();
        Self {
            desired: desired_replicas(&lanes),
            ready: sum(|lane| lane.ready),
            in_flight: sum(|lane| lane.in_flight),
            due_60s: sum(|lane| lane.due_60s),
            waits_on_vendor: loads
                .iter()
                .map(|(load, _)| load.waits_on_vendor.unsigned_abs())
                .sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(ready: u64, in_flight: u64, due_60s: u64) -> LaneLoad {
        LaneLoad {
            ready,
            in_flight,
            due_60s,
            capacity: 16,
        }
    }

    #[test]
    fn one_replica_is_the_least_and_a_full_one_needs_no_second() {
        assert_eq!(desired_replicas(&[]), 1);
        assert_eq!(desired_replicas(&[lane(0, 0, 0)]), 1);
        assert_eq!(desired_replicas(&[lane(4, 8, 4)]), 1);
    }

    #[test]
    fn one_job_more_than_fits_needs_another_replica() {
        assert_eq!(desired_replicas(&[lane(5, 8, 4)]), 2);
        assert_eq!(desired_replicas(&[lane(1600, 0, 0)]), 100);
    }

    #[test]
    fn the_lane_that_needs_most_decides() {
        let small = LaneLoad {
            capacity: 2,
            ..lane(0, 0, 9)
        };
        assert_eq!(desired_replicas(&[lane(17, 0, 0), small]), 5);
        let none = LaneLoad {
            capacity: 0,
            ..lane(3, 0, 0)
        };
        assert_eq!(desired_replicas(&[none]), 3);
    }

    #[test]
    fn what_waits_on_a_vendor_is_shown_and_needs_no_replica() {
        let load = PipelineLoad {
            due: 3,
            woken: 2,
            running: 1,
            due_soon: 4,
            waiting: 500,
            waits_on_vendor: 400,
            ..PipelineLoad::default()
        };
        let expected = Scale {
            desired: 3,
            ready: 5,
            in_flight: 1,
            due_60s: 4,
            waits_on_vendor: 400,
        };
        assert_eq!(Scale::of(&[(load, 4)]), expected);
    }
}
