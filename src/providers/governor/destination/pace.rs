//! How long a destination takes to answer, learned from its answers. Pure: time is an argument.
//!
//! What takes long and answers is calm, not broken. So a call is overdue only when it takes longer than the destination's
//! answers have led one to expect.

use std::time::Duration;

use tokio::time::Instant;

/// No call is overdue before this.
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// A call is overdue when it takes this many times as long as answers do.
const TIMES: u32 = 2;
/// How often the pace is lowered by an answer: an idle destination has shown nothing, and a thousand quick answers in a moment do
/// not say that the long ones are over.
const EASED_EVERY: Duration = Duration::from_secs(1);
/// The part by which it is lowered then: half of it is gone after eleven seconds of quicker answers.
const EASED_BY: u32 = 16;

/// The longest time of late between a call and its answer. Deadlines of calls bound it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    longest: Duration,
    eased: Instant,
}

impl Pace {
    /// Of one that is taken to answer within `longest` until it has shown something else.
    pub(super) const fn new(longest: Duration, now: Instant) -> Self {
        Self { longest, eased: now }
    }

    /// A call was answered at `now`, after so long.
    pub(super) fn answered(&mut self, after: Duration, now: Instant) {
        if now.saturating_duration_since(self.eased) >= EASED_EVERY {
            self.longest -= self.longest / EASED_BY;
            self.eased = now;
        }
        self.longest = self.longest.max(after);
    }

    /// A call that takes this long is overdue.
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
    fn a_long_answer_counts_at_once_and_is_forgotten_in_the_course_of_quick_ones() {
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
        assert!(pace.overdue_after() > CALM, "a long one each six seconds is no surprise");
        for _ in 0..40 {
            now += EASED_EVERY;
            pace.answered(QUICK, now);
        }
        assert_eq!(pace.overdue_after(), SLOW);
    }

    #[test]
    fn an_idle_hour_is_no_answer() {
        let now = Instant::now();
        let mut pace = Pace::new(CALM, now);
        let later = now + Duration::from_secs(3600);
        assert_eq!(pace.overdue_after(), 2 * CALM);
        pace.answered(QUICK, later);
        assert!(pace.overdue_after() > CALM);
    }
}
