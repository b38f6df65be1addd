//! The time that a destination takes to answer, learned from its answers. Pure: time is an
//! argument.
//!
//! A destination that answers slowly is not broken. A call is therefore overdue only if it takes
//! longer than the destination's answers suggest.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time after which a call can be overdue.
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// A call is overdue when it takes this many times as long as the answers take.
const TIMES: u32 = 2;
/// How often an answer can lower the expected time. An idle destination has shown nothing, and a
/// thousand quick answers in a moment do not show that long ones have ended.
const EASED_EVERY: Duration = Duration::from_secs(1);
/// The part by which an answer lowers the expected time. Eleven seconds of quicker answers halve
/// it.
const EASED_BY: u32 = 16;

/// The longest recent time between a call and its answer. The deadlines of calls bound it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    longest: Duration,
    eased: Instant,
}

impl Pace {
    /// Creates the pace of a destination that is assumed to answer within `longest` until it shows
    /// otherwise.
    pub(super) const fn new(longest: Duration, now: Instant) -> Self {
        Self {
            longest,
            eased: now,
        }
    }

    /// Records that a call was answered at `now`, `after` it began.
    pub(super) fn answered(&mut self, after: Duration, now: Instant) {
        if now.saturating_duration_since(self.eased) >= EASED_EVERY {
            self.longest -= self.longest / EASED_BY;
            self.eased = now;
        }
        self.longest = self.longest.max(after);
    }

    /// Returns the time after which a call is overdue.
    pub(super) fn overdue_after(self) -> Duration {
        self.longest.saturating_mul(TIMES).max(SLOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(20);
    const CALM: Duration = Duration::from_secs(5);

    #[test]
    fn a_slow_answer_counts_at_once_and_quick_answers_lower_the_expectation_gradually() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Duration::ZERO, now);
        assert_eq!(pace.overdue_after(), SLOW);
        pace.answered(QUICK, now);
        assert_eq!(pace.overdue_after(), SLOW);
        pace.answered(CALM, now);
        assert_eq!(pace.overdue_after(), 2 * CALM);
        for _ in 0..1000 {
            pace.answered(QUICK, now);
        }
        assert_eq!(pace.overdue_after(), 2 * CALM, "all in one moment");
        for _ in 0..6 {
            now += EASED_EVERY;
            pace.answered(QUICK, now);
        }
        assert!(
            pace.overdue_after() > CALM,
            "a slow answer every six seconds is not overdue"
        );
        for _ in 0..40 {
            now += EASED_EVERY;
            pace.answered(QUICK, now);
        }
        assert_eq!(pace.overdue_after(), SLOW);
    }

    #[test]
    fn idle_time_does_not_lower_the_expectation() {
        let now = Instant::now();
        let mut pace = Pace::new(CALM, now);
        let later = now + Duration::from_secs(3600);
        assert_eq!(pace.overdue_after(), 2 * CALM);
        pace.answered(QUICK, later);
        assert!(pace.overdue_after() > CALM);
    }
}
