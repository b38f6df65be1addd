//! Delays between attempts to reconnect. The only module that names `backoff`.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

/// Delays that grow from 50 ms to 2 s with jitter and never end: a connection is opened again
/// however long its server was unavailable.
pub struct Reconnect(ExponentialBackoff);

impl Default for Reconnect {
    fn default() -> Self {
        Self(ExponentialBackoff {
            initial_interval: Duration::from_millis(50),
            current_interval: Duration::from_millis(50),
            max_interval: Duration::from_secs(2),
            // The crate's default gives up after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }
}

impl Reconnect {
    /// Returns the next delay.
    ///
    /// # Panics
    /// Never: without a maximum elapsed time, there is always a next delay.
    pub fn next_delay(&mut self) -> Duration {
        self.0
            .next_backoff()
            .expect("there is no maximum elapsed time")
    }

    /// Starts again with the shortest delay, after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_never_end() {
        let mut reconnect = Reconnect::default();
        let delays: Vec<_> = (0..200).map(|_| reconnect.next_delay()).collect();
        assert!(delays[0] <= Duration::from_millis(100));
        assert!(
            delays[100..]
                .iter()
                .all(|delay| *delay >= Duration::from_millis(900)
                    && *delay <= Duration::from_secs(3))
        );
    }
}
