//! Retry delays: a pure function of policy, attempt and chance.

use std::time::Duration;

use crate::job::Attempt;

/// How often a stage is attempted, and how long apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The number of attempts, the first included.
    pub attempts: i32,
    /// The upper bound of the first delay; each later bound is three times the one before.
    pub base: Duration,
    /// The upper bound of every delay.
    pub cap: Duration,
}

/// The longest `Retry-After` that is honoured; a longer one is shortened to this.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(3600);
/// The shortest delay, so that retries never spin.
const SHORTEST: Duration = Duration::from_millis(50);

impl RetryPolicy {
    /// The default: twelve attempts, the last one at most about 20 hours after the first.
    pub const DEFAULT: Self = Self {
        attempts: 12,
        base: Duration::from_secs(1),
        cap: Duration::from_secs(12 * 3600),
    };

    /// Returns how long after the failed attempt `attempt` the next one is due, or `None` if it
    /// was the last one. The delay is exponential with full jitter (`chance` in 0..1). A
    /// `retry_after` replaces it exactly, up to an hour.
    #[must_use]
    pub fn delay(
        &self,
        attempt: Attempt,
        retry_after: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        if attempt.0 >= self.attempts {
            return None;
        }
        if let Some(retry_after) = retry_after {
            return Some(retry_after.min(RETRY_AFTER_CAP));
        }
        let exponent = attempt.0.saturating_sub(1).clamp(0, 40);
        let bound = (self.base.as_secs_f64() * 3f64.powi(exponent)).min(self.cap.as_secs_f64());
        Some(Duration::from_secs_f64(bound * chance.clamp(0.0, 1.0)).max(SHORTEST))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_is_bounded_and_ends_with_the_last_attempt(attempt in 1..40i32, chance in 0.0..1.0f64) {
            let policy = RetryPolicy::DEFAULT;
            let delay = policy.delay(Attempt(attempt), None, chance);
            prop_assert_eq!(delay.is_none(), attempt >= policy.attempts);
            if let Some(delay) = delay {
                prop_assert!(delay >= SHORTEST && delay <= policy.cap);
            }
        }
    }

    #[test]
    fn retry_after_is_honoured_exactly_up_to_an_hour() {
        let policy = RetryPolicy::DEFAULT;
        let retry_after = Duration::from_secs(17);
        assert_eq!(
            policy.delay(Attempt(1), Some(retry_after), 0.9),
            Some(retry_after)
        );
        assert_eq!(
            policy.delay(Attempt(1), Some(Duration::from_secs(9000)), 0.9),
            Some(RETRY_AFTER_CAP)
        );
    }
}
