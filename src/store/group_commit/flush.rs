//! The number of groups that are written at the same time; it depends on how long the disk takes
//! to flush.

use std::collections::VecDeque;
use std::time::Duration;

use crate::store::pool::WRITERS;

/// At least two: one is filled while the other is flushed.
const FEWEST: usize = 2;
/// One more writer for each of these units that a flush takes: on a slow disk, concurrent groups
/// share a flush.
const A_WRITER_EACH: Duration = Duration::from_micros(333);
/// Number of flush times that are kept.
const REMEMBERED: usize = 64;

/// The durations of the last flushes.
#[derive(Debug, Default)]
pub(super) struct FlushTimes(VecDeque<Duration>);

impl FlushTimes {
    pub(super) fn record(&mut self, took: Duration) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// Returns the number of writers for the shortest of them: the longer ones have waited for a
    /// processor or a lock, and more writers would not help.
    pub(super) fn writers(&self) -> usize {
        self.0
            .iter()
            .min()
            .map_or(FEWEST, |quickest| writers_for(*quickest))
    }
}

fn writers_for(flush: Duration) -> usize {
    let more = flush.as_micros() / A_WRITER_EACH.as_micros();
    usize::try_from(more).map_or(WRITERS, |more| (FEWEST + more).min(WRITERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_disk_has_two_writers_and_a_slow_one_up_to_eight() {
        for (micros, writers) in [(0, 2), (300, 2), (700, 4), (2_000, 8), (50_000, 8)] {
            assert_eq!(
                writers_for(Duration::from_micros(micros)),
                writers,
                "{micros} µs"
            );
        }
        assert_eq!(writers_for(Duration::MAX), WRITERS);
    }

    #[test]
    fn one_slow_flush_among_quick_ones_changes_nothing_and_a_disk_that_became_slow_does() {
        let mut times = FlushTimes::default();
        assert_eq!(times.writers(), FEWEST);
        times.record(Duration::from_micros(200));
        times.record(Duration::from_millis(20));
        assert_eq!(times.writers(), FEWEST);
        (0..REMEMBERED).for_each(|_| times.record(Duration::from_millis(3)));
        assert_eq!(times.writers(), WRITERS);
    }
}
