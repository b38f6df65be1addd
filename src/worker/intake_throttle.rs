//! Decides how intake is taken from its queue: at the pace of the lane, in a burst as rows, or not
//! at all.
//!
//! A queue that is longer than what the lane will soon complete becomes rows, which are woken
//! organizations in turn: a message behind thousands of another organization does not wait for
//! them. When Postgres holds as many jobs or dead letters as the operator allows, messages stay in
//! RabbitMQ.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::store::Backlog;
use crate::telemetry::names;

/// The least prefetch during a burst.
const BURST: u16 = 512;
/// The most bodies larger than [`SMALL`] that are decoded at the same time.
const DECODED_AT_A_TIME: usize = 2;
/// The largest body that is decoded at once, in bytes.
const SMALL: usize = 64 << 10;
/// A message that became a job and waits for its turn.
pub(super) const ONE_JOB: Backlog = Backlog {
    jobs: 1,
    dead_letters: 0,
};
/// A message that became a dead letter and waits for a person.
pub(super) const ONE_DEAD_LETTER: Backlog = Backlog {
    jobs: 0,
    dead_letters: 1,
};

/// Sets the prefetch of the intake consumer, and limits the decoding of large bodies.
pub struct IntakeThrottle {
    /// The prefetch that the intake consumer uses.
    prefetch: watch::Sender<u16>,
    steady: u16,
    /// The number of jobs that wait in Postgres for their turn, or of open dead letters, at which
    /// intake is paused.
    pub backlog_limit: u32,
    /// Whether the queue is long.
    burst: watch::Sender<bool>,
    /// Limits how many large bodies are decoded at the same time.
    decoding: Semaphore,
    seen: Mutex<Seen>,
}

/// The backlog as this replica knows it.
struct Seen {
    /// The last count, and the rows that this replica has made since.
    waiting: Backlog,
    /// The rows that this replica has made since its start.
    made: Backlog,
    full: bool,
}

impl IntakeThrottle {
    /// Creates the throttle of a lane with `limiters` permits, where `waiting` is the present
    /// backlog.
    #[must_use]
    pub fn new(limiters: usize, backlog_limit: u32, waiting: Backlog) -> Self {
        let steady = super::lane::prefetch(limiters);
        let ((prefetch, _), (burst, _)) = (watch::channel(steady), watch::channel(false));
        let seen = Mutex::new(Seen {
            waiting,
            made: Backlog::default(),
            full: false,
        });
        let decoding = Semaphore::new(DECODED_AT_A_TIME);
        let throttle = Self {
            prefetch,
            steady,
            backlog_limit,
            burst,
            decoding,
            seen,
        };
        metrics::gauge!(names::INTAKE_PAUSED).set(0.0);
        throttle.adjust(throttle.seen());
        throttle
    }

    /// Returns the prefetch of the intake consumer as it changes. At 0 intake is paused.
    #[must_use]
    pub fn prefetch(&self) -> watch::Receiver<u16> {
        self.prefetch.subscribe()
    }

    /// Waits until a body of `bytes` bytes may be decoded. Decoded JSON takes up to forty times
    /// its size, so only a few large bodies are decoded at the same time, whatever the number of
    /// cores.
    pub(super) async fn decoding_place(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        if bytes <= SMALL {
            return None;
        }
        Some(
            self.decoding
                .acquire()
                .await
                .expect("the semaphore is never closed"),
        )
    }

    /// Returns why intake is paused and what helps, or `None` where it is not paused.
    #[must_use]
    pub fn paused(&self) -> Option<String> {
        let seen = self.seen();
        seen.full.then(|| why_paused(seen.waiting))
    }

    /// Waits until the queue is long: then an intake message without a permit becomes a row at
    /// once.
    pub(super) async fn in_burst(&self) {
        self.burst
            .subscribe()
            .wait_for(|burst| *burst)
            .await
            .expect("the throttle owns the sender");
    }

    /// Records that the queue holds `ready` messages, and that the lane will soon complete `soon`
    /// of them.
    pub fn queue_holds(&self, ready: usize, soon: usize) {
        let seen = self.seen();
        // A burst ends only at half of that, because each change of the prefetch needs a new
        // consumer.
        self.burst.send_if_modified(|burst| {
            let long = ready > if *burst { soon / 2 } else { soon };
            std::mem::replace(burst, long) != long
        });
        self.adjust(seen);
    }

    /// Returns the rows that this replica has made so far. A count of the backlog reads it before
    /// it begins.
    pub fn made(&self) -> Backlog {
        self.seen().made
    }

    /// Records a count of the backlog that began when this replica had made `made`.
    pub fn backlog_is(&self, counted: Backlog, made: Backlog) {
        let mut seen = self.seen();
        seen.waiting = each(
            counted,
            each(seen.made, made, u32::wrapping_sub),
            u32::saturating_add,
        );
        self.adjust(seen);
    }

    /// Records that a message became a row, [`ONE_JOB`] or [`ONE_DEAD_LETTER`].
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
        let full = waiting
            >= if seen.full {
                self.backlog_limit - self.backlog_limit / 10
            } else {
                self.backlog_limit
            };
        if full != std::mem::replace(&mut seen.full, full) {
            metrics::gauge!(names::INTAKE_PAUSED).set(f64::from(u8::from(full)));
            if full {
                tracing::warn!(
                    limit = self.backlog_limit,
                    why = why_paused(seen.waiting),
                    "intake is paused: new messages stay in RabbitMQ"
                );
            } else {
                tracing::info!(waiting, "intake is resumed");
            }
        }
        let room = self.backlog_limit.saturating_sub(waiting);
        let in_burst = *self.burst.borrow() && room >= u32::from(BURST);
        let wanted = match (full, in_burst) {
            (true, _) => 0,
            (false, true) => self.steady.max(BURST),
            (false, false) => self.steady,
        };
        self.prefetch
            .send_if_modified(|now| std::mem::replace(now, wanted) != wanted);
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Combines two backlogs kind by kind.
fn each(one: Backlog, other: Backlog, with: fn(u32, u32) -> u32) -> Backlog {
    Backlog {
        jobs: with(one.jobs, other.jobs),
        dead_letters: with(one.dead_letters, other.dead_letters),
    }
}

fn most(waiting: Backlog) -> u32 {
    waiting.jobs.max(waiting.dead_letters)
}

fn why_paused(Backlog { jobs, dead_letters }: Backlog) -> String {
    if jobs >= dead_letters {
        return format!("intake is paused: {jobs} jobs wait for their turn");
    }
    format!(
        "intake is paused: {dead_letters} dead letters are open; replay or discard them (`dispatch dead-letters list`)"
    )
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const NOTHING: Backlog = Backlog {
        jobs: 0,
        dead_letters: 0,
    };

    const fn jobs(jobs: u32) -> Backlog {
        Backlog {
            jobs,
            dead_letters: 0,
        }
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
        assert!(
            throttle.in_burst().now_or_never().is_some(),
            "it is not short yet"
        );
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
        assert_eq!(
            *prefetch.borrow(),
            0,
            "one has come since they were counted"
        );
        throttle.backlog_is(jobs(89), jobs(1));
        assert_eq!(*prefetch.borrow(), 6);
        assert_eq!(throttle.paused(), None);
    }

    #[test]
    fn a_full_backlog_is_known_from_the_start_and_states_its_contents() {
        let full = IntakeThrottle::new(
            4,
            5,
            Backlog {
                jobs: 4,
                dead_letters: 5,
            },
        );
        assert_eq!(*full.prefetch().borrow(), 0);
        assert!(
            full.paused()
                .is_some_and(|why| why.contains("5 dead letters are open"))
        );
        full.one_more(ONE_JOB);
        assert!(full.paused().is_some_and(|why| why.contains("5 jobs wait")));
        full.backlog_is(jobs(4), jobs(1));
        assert_eq!(*full.prefetch().borrow(), 6, "a small limit is left, too");
    }
}
