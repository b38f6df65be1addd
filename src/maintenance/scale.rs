//! How many replicas the work that replicas can do now needs.

/// The jobs of a lane, and how many of them one replica runs at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LaneLoad {
    /// Jobs that are ready and due, with a wake-up or without.
    pub(super) ready: u64,
    /// Jobs that run.
    pub(super) in_flight: u64,
    /// Jobs that will be due within 60 s.
    pub(super) due_60s: u64,
    /// The concurrency limit of the lane on one replica.
    pub(super) capacity: u64,
}

/// Returns the number of replicas whose lanes run all of the work at the same time: that of the
/// lane that needs most, and at least one. Jobs that wait on a vendor are no part of a
/// [`LaneLoad`]: more replicas would not finish them sooner.
pub(super) fn desired_replicas(lanes: &[LaneLoad]) -> u64 {
    let needed = lanes
        .iter()
        .map(|lane| (lane.ready + lane.in_flight + lane.due_60s).div_ceil(lane.capacity.max(1)));
    needed.max().unwrap_or_default().max(1)
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
}
