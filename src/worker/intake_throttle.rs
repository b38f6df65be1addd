//! How intake is taken from its queue: at the lane's own pace, quickly as rows, or not at all.
//!
//! A queue that is longer than what the lane soon does becomes rows, which are woken organizations in turn: whoever comes behind
//! another's thousands in the queue does not wait for them. Where Postgres holds more than the operator wants, messages stay with
//! the broker.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::store::Backlog;
use crate::telemetry::names;

/// Messages in hand while a long queue becomes rows, at least.
const BURST: u16 = 512;
/// Bodies that are decoded at a time, of those that are not small.
const DECODED_AT_A_TIME: usize = 2;
/// In bytes.
const SMALL: usize = 64 << 10;
/// What a message has become that waits for its turn.
pub(super) const ONE_JOB: Backlog = Backlog { jobs: 1, dead_letters: 0 };
/// What a message has become that waits for a person.
pub(super) const ONE_DEAD_LETTER: Backlog = Backlog { jobs: 0, dead_letters: 1 };

/// How intake is taken.
pub struct IntakeThrottle {
    /// What the consumer of intake follows.
    prefetch: watch::Sender<u16>,
    steady: u16,
    /// Jobs that may wait in Postgres for their turn, and open dead letters; with more of either, nothing is taken.
    pub backlog_limit: u32,
    /// The queue is long.
    burst: watch::Sender<bool>,
    /// Where large bodies are decoded.
    decoding: Semaphore,
    seen: Mutex<Seen>,
}

/// What is known of both sides.
struct Seen {
    /// As counted last, and what was made here since.
    waiting: Backlog,
    /// What was made here since the start.
    made: Backlog,
    full: bool,
}

impl IntakeThrottle {
    /// For a lane with so many seats, and with what waits already.
    #[must_use]
    pub fn new(limiters: usize, backlog_limit: u32, waiting: Backlog) -> Self {
        let steady = super::lane::prefetch(limiters);
        let ((prefetch, _), (burst, _)) = (watch::channel(steady), watch::channel(false));
        let seen = Mutex::new(Seen { waiting, made: Backlog::default(), full: false });
        let decoding = Semaphore::new(DECODED_AT_A_TIME);
        let throttle = Self { prefetch, steady, backlog_limit, burst, decoding, seen };
        metrics::gauge!(names::INTAKE_PAUSED).set(0.0);
        throttle.adjust(throttle.seen());
        throttle
    }

    /// Messages in hand at most, as it changes; 0: none is taken.
    #[must_use]
    pub fn prefetch(&self) -> watch::Receiver<u16> {
        self.prefetch.subscribe()
    }

    /// A place to decode a body of so many bytes in. Decoded, JSON takes up to forty times its size; so of large bodies a few are
    /// decoded at a time, however many cores there are.
    pub(super) async fn decoding_place(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        if bytes <= SMALL {
            return None;
        }
        Some(self.decoding.acquire().await.expect("the semaphore is never closed"))
    }

    /// Why nothing is taken, if so, and what helps.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        let seen = self.seen();
        seen.full.then(|| why_paused(seen.waiting))
    }

    /// Until the queue is long: intake that finds no free seat becomes a row then instead of waiting for one.
    pub(super) async fn in_burst(&self) {
        self.burst.subscribe().wait_for(|burst| *burst).await.expect("the sender is this one's own");
    }

    /// The queue holds `ready` messages, of which the lane soon does `soon`.
    pub fn queue_holds(&self, ready: usize, soon: usize) {
        let seen = self.seen();
        // It is not left at the first message less: each change of the prefetch is a new consumer.
        self.burst.send_if_modified(|burst| {
            let long = ready > if *burst { soon / 2 } else { soon };
            std::mem::replace(burst, long) != long
        });
        self.adjust(seen);
    }

    /// What was made here so far, for who begins to count.
    pub fn made(&self) -> Backlog {
        self.seen().made
    }

    /// So much waits, as counted from when so much was `made`.
    pub fn backlog_is(&self, counted: Backlog, made: Backlog) {
        let mut seen = self.seen();
        seen.waiting = each(counted, each(seen.made, made, u32::wrapping_sub), u32::saturating_add);
        self.adjust(seen);
    }

    /// A message has become a row, [`ONE_JOB`] or [`ONE_DEAD_LETTER`].
    pub(super) fn one_more(&self, one: Backlog) {
        let mut seen = self.seen();
        seen.waiting = each(seen.waiting, one, u32::saturating_add);
        seen.made = each(seen.made, one, u32::wrapping_add);
        if most(seen.waiting) >= self.backlog_limit && !seen.full {
            self.adjust(seen);
        }
    }

    fn adjust(&self, mut seen: MutexGuard<'_, Seen>) {
        let waiting = most(seen.waiting);
        let full = waiting >= if seen.full { self.backlog_limit - self.backlog_limit / 10 } else { self.backlog_limit };
        if full != std::mem::replace(&mut seen.full, full) {
            metrics::gauge!(names::INTAKE_PAUSED).set(f64::from(u8::from(full)));
            if full {
                tracing::warn!(limit = self.backlog_limit, why = why_paused(seen.waiting), "new messages stay in RabbitMQ");
            } else {
                tracing::info!(waiting, "intake goes on");
            }
        }
        let room = self.backlog_limit.saturating_sub(waiting);
        let in_burst = *self.burst.borrow() && room >= u32::from(BURST);
        let wanted = match (full, in_burst) {
            (true, _) => 0,
            (false, true) => self.steady.max(BURST),
            (false, false) => self.steady,
        };
        self.prefetch.send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both kinds of the one with those of the other.
fn each(one: Backlog, other: Backlog, with: fn(u32, u32) -> u32) -> Backlog {
    Backlog { jobs: with(one.jobs, other.jobs), dead_letters: with(one.dead_letters, other.dead_letters) }
}

fn most(waiting: Backlog) -> u32 {
    waiting.jobs.max(waiting.dead_letters)
}

fn why_paused(Backlog { jobs, dead_letters }: Backlog) -> String {
    if jobs >= dead_letters {
        return format!("intake is paused: {jobs} jobs wait for their turn");
    }
    format!("intake is paused: {dead_letters} dead letters are open; replay or discard them (`dispatch dead-letters list`)")
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const NOTHING: Backlog = Backlog { jobs: 0, dead_letters: 0 };

    const fn jobs(jobs: u32) -> Backlog {
        Backlog { jobs, dead_letters: 0 }
    }

    #[test]
    fn a_long_queue_becomes_rows_until_it_is_short() {
        let throttle = IntakeThrottle::new(4, 10_000, NOTHING);
        let prefetch = throttle.prefetch();
        assert_eq!(*prefetch.borrow(), 6);
        throttle.queue_holds(11, 10);
        assert!(throttle.in_burst().now_or_never().is_some());
        assert_eq!(*prefetch.borrow(), BURST);
        throttle.queue_holds(6, 10);
        assert!(throttle.in_burst().now_or_never().is_some(), "it is not short yet");
        throttle.queue_holds(5, 10);
        assert!(throttle.in_burst().now_or_never().is_none());
        assert_eq!(*prefetch.borrow(), 6);
    }

    #[test]
    fn too_many_rows_stop_intake_until_a_tenth_of_them_is_gone() {
        let throttle = IntakeThrottle::new(4, 100, NOTHING);
        let prefetch = throttle.prefetch();
        throttle.queue_holds(1000, 10);
        assert_eq!(*prefetch.borrow(), 6, "little room is not filled at once");
        throttle.backlog_is(jobs(99), NOTHING);
        throttle.one_more(ONE_JOB);
        assert_eq!(*prefetch.borrow(), 0);
        throttle.backlog_is(jobs(91), jobs(1));
        assert_eq!(*prefetch.borrow(), 0);
        throttle.backlog_is(jobs(89), NOTHING);
        assert_eq!(*prefetch.borrow(), 0, "one has come since they were counted");
        throttle.backlog_is(jobs(89), jobs(1));
        assert_eq!(*prefetch.borrow(), 6);
        assert_eq!(throttle.paused(), None);
    }

    #[test]
    fn a_full_backlog_is_known_from_the_start_and_says_what_it_is_full_of() {
        let full = IntakeThrottle::new(4, 5, Backlog { jobs: 4, dead_letters: 5 });
        assert_eq!(*full.prefetch().borrow(), 0);
        assert!(full.paused().is_some_and(|why| why.contains("5 dead letters are open")));
        full.one_more(ONE_JOB);
        assert!(full.paused().is_some_and(|why| why.contains("5 jobs wait")));
        full.backlog_is(jobs(4), jobs(1));
        assert_eq!(*full.prefetch().borrow(), 6, "a small limit is left, too");
    }
}
