//! Limits of requests: of those with a bad token, and of those with the same token.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::console::problem::Problem;

/// Bad tokens within [`WINDOW`] that are answered with 401; further ones with 429.
const BAD: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Requests with one token at once.
const BURST: f64 = 200.0;
/// Requests with one token in a second, in the long run.
const RATE: f64 = 20.0;
/// Tokens whose requests are counted. There are not more valid tokens.
const TOKENS: usize = 1000;

/// Counts requests with a bad token. A valid token is accepted all the same: nobody can lock out
/// another person.
#[derive(Debug, Default)]
pub(in crate::console) struct Refusals(Mutex<Option<(Instant, u32)>>);

impl Refusals {
    /// Counts a bad token and returns the problem.
    pub(in crate::console) fn refused(&self, what: &str) -> Problem {
        if self.count(Instant::now()) > BAD {
            return Problem::too_many("expected a valid token, got too many bad ones")
                .after(WINDOW.as_secs());
        }
        Problem::unauthorized(format!(
            "expected {what} to be valid, got one that is unknown, revoked or over"
        ))
    }

    fn count(&self, now: Instant) -> u32 {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, count) = window
            .filter(|(begun, _)| now.duration_since(*begun) < WINDOW)
            .unwrap_or((now, 0));
        *window = Some((begun, count + 1));
        count + 1
    }
}

/// The requests of each token, as a bucket that fills at [`RATE`] up to [`BURST`].
#[derive(Debug, Default)]
pub(in crate::console) struct Rates(Mutex<HashMap<i64, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// How many more requests a token may send at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::console) struct Left(pub(in crate::console) u32);

impl Rates {
    /// Counts a request of a token.
    ///
    /// # Errors
    /// `too_many`.
    pub(in crate::console) fn take(&self, token: i64) -> Result<Left, Problem> {
        self.take_at(token, Instant::now())
    }

    fn take_at(&self, token: i64, now: Instant) -> Result<Left, Problem> {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= TOKENS && !buckets.contains_key(&token) {
            buckets.retain(|_, bucket| bucket.left_at(now) < BURST);
        }
        let bucket = buckets.entry(token).or_insert(Bucket {
            left: BURST,
            at: now,
        });
        bucket.left = bucket.left_at(now);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Problem::too_many(format!(
                "expected at most {RATE} requests in a second with one token, got more"
            ))
            .after(1));
        }
        bucket.left -= 1.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and the burst"
        )]
        Ok(Left(bucket.left as u32))
    }
}

impl Bucket {
    fn left_at(&self, now: Instant) -> f64 {
        let filled = now.duration_since(self.at).as_secs_f64() * RATE;
        (self.left + filled).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_tokens_are_refused_with_429_after_ten_in_a_minute() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let counts: Vec<u32> = (0..12).map(|_| refusals.count(start)).collect();
        assert_eq!(counts.last(), Some(&12));
        assert_eq!(refusals.refused("the token").status, 429);
        assert_eq!(refusals.count(start + WINDOW), 1);
    }

    #[test]
    fn a_token_s_requests_are_limited_and_another_token_s_are_not() {
        let (rates, start) = (Rates::default(), Instant::now());
        for left in (0..200).rev() {
            assert_eq!(rates.take_at(1, start).unwrap(), Left(left));
        }
        assert_eq!(rates.take_at(1, start).unwrap_err().status, 429);
        assert!(rates.take_at(2, start).is_ok());
        assert!(rates.take_at(1, start + Duration::from_millis(50)).is_ok());
    }
}
