//! A destination's circuit breaker: opens after consecutive failures, then admits one probe. Pure:
//! time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The number of consecutive failures that opens a circuit.
pub(super) const FAILURES: u32 = 5;
/// How long a circuit stays open the first time; each further time twice as long.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circuit {
    /// Calls may go out. `failures` counts the consecutive failures.
    Closed { failures: u32 },
    /// No call may go out. `times` counts how often the circuit has opened since it was closed.
    Open { until: Instant, times: u32 },
    /// One probe may go out; `probing` while it is in flight.
    HalfOpen { times: u32, probing: bool },
}

/// The answer of a circuit breaker to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Go,
    /// The call may go out as the probe.
    Probe,
    /// A probe is in flight.
    Probing,
    /// No call may go out before this time.
    Open(Instant),
}

impl Circuit {
    pub(super) const fn new() -> Self {
        Self::Closed { failures: 0 }
    }

    /// Decides about a call at `now`. The caller of a call that goes out as [`Says::Probe`] must
    /// call [`Circuit::probe`], too.
    pub(super) fn ask(&mut self, now: Instant) -> Says {
        match *self {
            Self::Closed { .. } => Says::Go,
            Self::Open { until, .. } if now < until => Says::Open(until),
            Self::Open { times, .. } => {
                *self = Self::HalfOpen {
                    times,
                    probing: false,
                };
                Says::Probe
            }
            Self::HalfOpen { probing: false, .. } => Says::Probe,
            Self::HalfOpen { probing: true, .. } => Says::Probing,
        }
    }

    /// Records that the probe is in flight.
    pub(super) fn probe(&mut self) {
        if let Self::HalfOpen { probing, .. } = self {
            *probing = true;
        }
    }

    /// Records that a call was answered. Calls that began before the circuit opened do not count.
    pub(super) fn succeeded(&mut self, was_probe: bool) {
        if was_probe || matches!(self, Self::Closed { .. }) {
            *self = Self::new();
        }
    }

    /// Records that a call failed at `now`. If this opens the circuit, returns until when it is
    /// open.
    pub(super) fn failed(&mut self, was_probe: bool, now: Instant) -> Option<Instant> {
        let times = match *self {
            Self::Closed { failures } if failures + 1 < FAILURES => {
                *self = Self::Closed {
                    failures: failures + 1,
                };
                return None;
            }
            Self::Closed { .. } => 0,
            Self::HalfOpen { times, .. } if was_probe => times,
            Self::Open { .. } | Self::HalfOpen { .. } => return None,
        };
        let until = now + FIRST.saturating_mul(1 << times.min(8)).min(LONGEST);
        *self = Self::Open {
            until,
            times: times + 1,
        };
        Some(until)
    }

    /// Records that a probe ended without a result.
    pub(super) fn probe_lost(&mut self) {
        if let Self::HalfOpen { probing, .. } = self {
            *probing = false;
        }
    }

    /// Records that the circuit of another replica is open until `until`.
    pub(super) fn seen_open(&mut self, until: Instant) {
        if matches!(self, Self::Closed { .. }) {
            *self = Self::Open { until, times: 1 };
        }
    }

    /// Records that the hold of an open circuit was released before its time.
    pub(super) fn released(&mut self, now: Instant) {
        if let Self::Open { until, .. } = self {
            *until = (*until).min(now);
        }
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened(now: Instant) -> (Circuit, Instant) {
        let mut circuit = Circuit::new();
        for _ in 1..FAILURES {
            assert_eq!(circuit.failed(false, now), None);
        }
        let until = circuit
            .failed(false, now)
            .expect("the last of them opens it");
        (circuit, until)
    }

    #[test]
    fn consecutive_failures_open_a_circuit_and_a_success_resets_the_count() {
        let now = Instant::now();
        let mut circuit = Circuit::new();
        for _ in 0..3 {
            for _ in 1..FAILURES {
                assert_eq!(circuit.failed(false, now), None);
            }
            circuit.succeeded(false);
        }
        assert!(circuit.is_closed());
        let (mut circuit, until) = opened(now);
        assert_eq!((until - now, circuit.ask(now)), (FIRST, Says::Open(until)));
    }

    #[test]
    fn one_probe_goes_out_and_closes_the_circuit_or_opens_it_for_longer() {
        let now = Instant::now();
        let (mut circuit, mut until) = opened(now);
        for seconds in [10, 20, 40, 60, 60] {
            assert_eq!(circuit.ask(until), Says::Probe);
            circuit.probe();
            assert_eq!(circuit.ask(until), Says::Probing, "one at a time");
            assert_eq!(
                circuit.failed(false, until),
                None,
                "a call from before does not count"
            );
            let again = circuit.failed(true, until).expect("the probe has failed");
            assert_eq!(again - until, Duration::from_secs(seconds));
            until = again;
        }
        assert_eq!(circuit.ask(until), Says::Probe);
        circuit.probe();
        circuit.succeeded(false);
        assert_eq!(
            circuit.ask(until),
            Says::Probing,
            "a call from before does not count"
        );
        circuit.succeeded(true);
        assert_eq!(circuit.ask(until), Says::Go);
    }

    #[test]
    fn another_probe_may_follow_a_probe_without_a_result() {
        let (mut circuit, until) = opened(Instant::now());
        assert_eq!(circuit.ask(until), Says::Probe);
        circuit.probe();
        circuit.probe_lost();
        assert_eq!(circuit.ask(until), Says::Probe);
    }

    #[test]
    fn a_circuit_opened_by_another_replica_is_probed_here_and_a_release_ends_it() {
        let now = Instant::now();
        let mut circuit = Circuit::new();
        circuit.seen_open(now + FIRST);
        assert_eq!(circuit.ask(now), Says::Open(now + FIRST));
        circuit.released(now);
        assert_eq!(circuit.ask(now), Says::Probe);
    }

    proptest! {
        /// In any sequence of events, a circuit is never open for longer than a minute, and then
        /// exactly one call goes out.
        #[test]
        fn an_open_circuit_always_ends_and_admits_one_probe(steps in proptest::collection::vec((0..4u8, 0..90u64), 1..200)) {
            let mut now = Instant::now();
            let mut circuit = Circuit::new();
            let mut probing = false;
            for (what, seconds) in steps {
                now += Duration::from_secs(seconds);
                match (what, circuit.ask(now)) {
                    (0, Says::Probe) => { circuit.probe(); probing = true; }
                    (1, _) => { circuit.succeeded(probing); probing = false; }
                    (2, _) => { circuit.failed(probing, now); probing = false; }
                    (_, Says::Open(until)) => prop_assert!(until <= now + LONGEST),
                    (_, Says::Go | Says::Probe | Says::Probing) => {}
                }
            }
            circuit.probe_lost();
            let later = now + LONGEST;
            match circuit.ask(later) {
                Says::Go => prop_assert!(circuit.is_closed()),
                Says::Probe => { circuit.probe(); prop_assert_eq!(circuit.ask(later), Says::Probing); }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
