//! The length of holds for rate limits without a stated length (a 429 without `Retry-After`, the
//! page of a provider's edge): longer each time, until a call succeeds. Pure: time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::destination_states::DESTINATIONS;

/// The length of the first hold, and of the first one after a success.
pub(super) const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(600);

/// The rate limits without a stated length that no success has ended yet, by scope.
#[derive(Debug, Default)]
pub(super) struct Unsaid(HashMap<String, Step>);

#[derive(Debug, Clone, Copy)]
struct Step {
    length: Duration,
    /// When the length was last raised.
    since: Instant,
}

impl Unsaid {
    /// Returns how long to hold `held` after such an answer at `now` to a call that began at
    /// `began`. Calls that were in flight together are refused for the same cause, and count once.
    pub(super) fn length(&mut self, held: &str, began: Instant, now: Instant) -> Duration {
        if let Some(step) = self.0.get_mut(held) {
            if began >= step.since {
                *step = Step {
                    length: (step.length * 2).min(LONGEST),
                    since: now,
                };
            }
            return step.length;
        }
        if self.0.len() >= DESTINATIONS
            && let Some(oldest) = self
                .0
                .iter()
                .min_by_key(|(_, step)| step.since)
                .map(|(held, _)| held.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(
            held.to_owned(),
            Step {
                length: FIRST,
                since: now,
            },
        );
        FIRST
    }

    /// Records that a call that began at `began` has succeeded. A call that was in flight before
    /// the limit does not count.
    pub(super) fn succeeded(&mut self, held: &str, began: Instant) {
        if self.0.get(held).is_some_and(|step| began >= step.since) {
            self.0.remove(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_doubles_up_to_ten_minutes_and_a_success_resets_it() {
        let mut now = Instant::now();
        let mut unsaid = Unsaid::default();
        for seconds in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
            let length = unsaid.length("a", now, now);
            assert_eq!(length.as_secs(), seconds);
            now += length;
        }
        assert_eq!(unsaid.length("b", now, now), FIRST, "another one");
        unsaid.succeeded("a", now);
        assert_eq!(unsaid.length("a", now, now), FIRST);
    }

    #[test]
    fn calls_in_flight_together_count_once_and_their_successes_do_not_reset_the_length() {
        let begun = Instant::now();
        let now = begun + Duration::from_secs(1);
        let mut unsaid = Unsaid::default();
        for _ in 0..4 {
            assert_eq!(unsaid.length("a", begun, now), FIRST);
        }
        unsaid.succeeded("a", begun);
        assert_eq!(unsaid.length("a", now, now), 2 * FIRST);
    }

    #[test]
    fn the_number_of_remembered_limits_is_bounded() {
        let begun = Instant::now();
        let mut unsaid = Unsaid::default();
        for number in 0..=DESTINATIONS {
            unsaid.length(
                &number.to_string(),
                begun,
                begun + Duration::from_millis(number as u64),
            );
        }
        assert_eq!(
            (unsaid.0.len(), unsaid.0.contains_key("0")),
            (DESTINATIONS, false)
        );
    }
}
