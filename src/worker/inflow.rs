//! How intake is taken from its queue: at the lane's own pace, quickly as rows, or not at all.
//!
//! A queue that is longer than what the lane soon does becomes rows, which are woken organizations in turn: whoever comes behind
//! another's thousands in the queue does not wait for them. Where Postgres holds more than the operator wants, messages stay with
//! the broker.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::telemetry::names;

/// Messages in hand while a long queue becomes rows, at least.
const FLOOD: u16 = 512;

/// How intake is taken.
pub struct Inflow {
    /// What the consumer of intake follows.
    prefetch: watch::Sender<u16>,
    steady: u16,
    /// Jobs that may wait in Postgres for their turn, and open dead letters; with more of either, nothing is taken.
    pub(super) backlog_limit: u32,
    /// The queue is long.
    flood: watch::Sender<bool>,
    seen: Mutex<Seen>,
}

/// What is known of both sides.
struct Seen {
    /// Jobs that wait in Postgres for their turn, or dead letters: when they were counted, and those made here since.
    waiting: u32,
    /// Those made here since the start.
    made: u32,
    full: bool,
}

impl Inflow {
    /// For a lane with so many seats.
    #[must_use]
    pub fn new(seats: usize, backlog_limit: u32) -> Self {
        let steady = super::lane::prefetch(seats);
        let ((prefetch, _), (flood, _)) = (watch::channel(steady), watch::channel(false));
        Self { prefetch, steady, backlog_limit, flood, seen: Mutex::new(Seen { waiting: 0, made: 0, full: false }) }
    }

    /// Messages in hand at most, as it changes; 0: none is taken.
    #[must_use]
    pub fn prefetch(&self) -> watch::Receiver<u16> {
        self.prefetch.subscribe()
    }

    /// Until the queue is long: intake that finds no free seat becomes a row then instead of waiting for one.
    pub(super) async fn flooded(&self) {
        self.flood.subscribe().wait_for(|flood| *flood).await.expect("the sender is this one's own");
    }

    /// The queue holds `ready` messages, of which the lane soon does `soon`.
    pub(super) fn queue_holds(&self, ready: usize, soon: usize) {
        let seen = self.seen();
        // It is not left at the first message less: each change of the prefetch is a new consumer.
        self.flood.send_if_modified(|flood| {
            let long = ready > if *flood { soon / 2 } else { soon };
            std::mem::replace(flood, long) != long
        });
        self.adjust(seen);
    }

    /// Rows made here so far, for who begins to count.
    pub(super) fn made(&self) -> u32 {
        self.seen().made
    }

    /// So many jobs wait in Postgres for their turn, or so many dead letters for a person, as counted when so many were `made`.
    pub(super) fn backlog_is(&self, waiting: u32, made: u32) {
        let mut seen = self.seen();
        seen.waiting = waiting.saturating_add(seen.made.wrapping_sub(made));
        self.adjust(seen);
    }

    /// A message has become a row that waits for its turn, or for a person.
    pub(super) fn one_more(&self) {
        let mut seen = self.seen();
        (seen.waiting, seen.made) = (seen.waiting.saturating_add(1), seen.made.wrapping_add(1));
        if seen.waiting >= self.backlog_limit && !seen.full {
            self.adjust(seen);
        }
    }

    fn adjust(&self, mut seen: MutexGuard<'_, Seen>) {
        let full = seen.waiting >= if seen.full { self.backlog_limit / 10 * 9 } else { self.backlog_limit };
        if full != std::mem::replace(&mut seen.full, full) {
            metrics::gauge!(names::INTAKE_PAUSED).set(f64::from(u8::from(full)));
            if full {
                tracing::warn!(
                    limit = self.backlog_limit,
                    "too many jobs wait for their turn, or dead letters for a person: new ones stay in RabbitMQ"
                );
            } else {
                tracing::info!(waiting = seen.waiting, "intake goes on");
            }
        }
        let room = self.backlog_limit.saturating_sub(seen.waiting);
        let flooded = *self.flood.borrow() && room >= u32::from(FLOOD);
        let wanted = match (full, flooded) {
            (true, _) => 0,
            (false, true) => self.steady.max(FLOOD),
            (false, false) => self.steady,
        };
        self.prefetch.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_long_queue_becomes_rows_until_it_is_short() {
        let inflow = Inflow::new(4, 10_000);
        let prefetch = inflow.prefetch();
        assert_eq!(*prefetch.borrow(), 6);
        inflow.queue_holds(11, 10);
        assert!(inflow.flooded().now_or_never().is_some());
        assert_eq!(*prefetch.borrow(), FLOOD);
        inflow.queue_holds(6, 10);
        assert!(inflow.flooded().now_or_never().is_some(), "it is not short yet");
        inflow.queue_holds(5, 10);
        assert!(inflow.flooded().now_or_never().is_none());
        assert_eq!(*prefetch.borrow(), 6);
    }

    #[test]
    fn too_many_rows_stop_intake_until_a_tenth_of_them_is_gone() {
        let inflow = Inflow::new(4, 100);
        let prefetch = inflow.prefetch();
        inflow.queue_holds(1000, 10);
        assert_eq!(*prefetch.borrow(), 6, "little room is not filled at once");
        inflow.backlog_is(99, 0);
        inflow.one_more();
        assert_eq!(*prefetch.borrow(), 0);
        inflow.backlog_is(91, 1);
        assert_eq!(*prefetch.borrow(), 0);
        inflow.backlog_is(89, 0);
        assert_eq!(*prefetch.borrow(), 0, "one has come since they were counted");
        inflow.backlog_is(89, 1);
        assert_eq!(*prefetch.borrow(), 6);
    }
}
