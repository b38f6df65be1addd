//! A lane: limits how many of its jobs run at the same time, and divides them among organizations.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc};
use tokio_util::task::TaskTracker;

use super::Worker;
use crate::broker::Delivery;
use crate::engine::{Lane, Product, Spawn};
use crate::job::JobId;
use crate::store::Tables;

/// Returns the prefetch for a lane with `limiters` permits: half as many again, so the next
/// delivery is already here when a permit becomes free.
#[must_use]
pub fn prefetch(limiters: usize) -> u16 {
    u16::try_from(limiters * 3 / 2).unwrap_or(u16::MAX).max(2)
}

/// A lane that takes intake reserves one permit of this many for organizations that have none.
const ONE_KEPT_OF: usize = 8;

/// The most jobs of dead owners that wait for a permit here: more than one takeover frees, so that
/// none of them waits for RabbitMQ.
const TAKEN_OVER: usize = 1024;

/// An organization is active for this long after its last delivery.
const ACTIVE_FOR: Duration = Duration::from_secs(10);

/// The concurrency limit of a lane on this replica: hands out its permits.
pub struct LaneLimiter {
    pub lane: Lane,
    permits: Arc<Semaphore>,
    /// The permits that are reserved for organizations that have none.
    kept: Arc<Semaphore>,
    /// Limits how many intake messages wait for a permit.
    waiting_room: Semaphore,
    /// Lets one wake-up or intake message at a time wait on `permits`.
    line: Semaphore,
    /// Lets one intake message at a time wait on `line`.
    turn: Semaphore,
    taken_over: Mutex<VecDeque<JobId>>,
    more_taken_over: Notify,
    capacity: usize,
    organizations: Mutex<HashMap<String, Active>>,
    /// Whether jobs run on this lane; otherwise deliveries only become rows.
    pub(super) runs: bool,
    /// The number of permits released so far.
    freed: Arc<AtomicUsize>,
    pace: Mutex<Pace>,
}

/// The rate at which permits are released.
struct Pace {
    seen: usize,
    at: Instant,
    per_second: f64,
}

/// How long a measured pace is used before it is measured again.
const PACE_OVER: Duration = Duration::from_secs(1);

struct Active {
    running: usize,
    last_seen: Instant,
}

/// The right to run one job on a lane. Dropping it releases it.
pub(super) struct Permit {
    _permit: OwnedSemaphorePermit,
    freed: Arc<AtomicUsize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
    }
}

/// One job in its organization's share of a lane. Dropping it returns the part of the share.
pub(super) struct TenantShare {
    limiter: Arc<LaneLimiter>,
    organization: String,
    /// Whether the organization had no other job on this lane when this one was counted.
    is_first: bool,
}

impl Drop for TenantShare {
    fn drop(&mut self) {
        if let Some(active) = self.limiter.active().get_mut(&self.organization) {
            active.running = active.running.saturating_sub(1);
        }
    }
}

impl LaneLimiter {
    /// Creates the limiter of a lane for `capacity` jobs at a time, all of which arrive as
    /// wake-ups.
    #[must_use]
    pub fn new(lane: Lane, capacity: usize) -> Self {
        Self::keeping(lane, capacity, 0)
    }

    /// Creates the limiter of a lane for `capacity` jobs at a time, some of which arrive as
    /// intake. Only those can use the reserved permits.
    #[must_use]
    pub fn with_intake(lane: Lane, capacity: usize) -> Self {
        Self::keeping(lane, capacity, capacity / ONE_KEPT_OF)
    }

    fn keeping(lane: Lane, capacity: usize, kept: usize) -> Self {
        Self {
            lane,
            permits: Arc::new(Semaphore::new(capacity - kept)),
            kept: Arc::new(Semaphore::new(kept)),
            waiting_room: Semaphore::new(usize::from(prefetch(capacity))),
            line: Semaphore::new(1),
            turn: Semaphore::new(1),
            taken_over: Mutex::default(),
            more_taken_over: Notify::new(),
            capacity,
            organizations: Mutex::default(),
            runs: true,
            freed: Arc::default(),
            pace: Mutex::new(Pace {
                seen: 0,
                at: Instant::now(),
                per_second: 0.0,
            }),
        }
    }

    /// Creates a limiter for queues whose deliveries run no job: control messages, and messages
    /// that RabbitMQ gave up delivering.
    #[must_use]
    pub fn rows_only(lane: Lane) -> Self {
        Self {
            runs: false,
            ..Self::new(lane, 1)
        }
    }

    /// Waits in line for a permit.
    pub(super) async fn permit(&self) -> Permit {
        let _line = self
            .line
            .acquire()
            .await
            .expect("the semaphore is never closed");
        self.permit_past_line().await
    }

    /// Waits for a permit ahead of the line, for a job whose owner is dead.
    pub(super) async fn permit_past_line(&self) -> Permit {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        Permit {
            _permit: permit,
            freed: Arc::clone(&self.freed),
        }
    }

    /// Returns a place to wait in for [`LaneLimiter::permit_in_turn`], or `None` where too many
    /// intake messages wait already.
    pub(super) fn waiting_place(&self) -> Option<SemaphorePermit<'_>> {
        self.waiting_room.try_acquire().ok()
    }

    /// Waits for a permit for an intake message. Of all intake that waits, one message at a time
    /// stands in line with the wake-ups, because wake-ups are for older jobs and for jobs of dead
    /// owners.
    pub(super) async fn permit_in_turn(&self) -> Permit {
        let _turn = self
            .turn
            .acquire()
            .await
            .expect("the semaphore is never closed");
        self.permit().await
    }

    /// Queues jobs of dead owners, which are due again, for the next permits of this lane: they
    /// wait neither for their wake-ups to pass through the queue nor for RabbitMQ to be available.
    /// The number that waits is bounded; the others come with their wake-ups.
    pub fn take_over(&self, jobs: impl Iterator<Item = JobId>) {
        let mut waiting = self
            .taken_over
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let room = TAKEN_OVER.saturating_sub(waiting.len());
        waiting.extend(jobs.take(room));
        drop(waiting);
        self.more_taken_over.notify_one();
    }

    /// Waits for the next job of a dead owner.
    async fn next_taken_over(&self) -> JobId {
        loop {
            let next = self
                .taken_over
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            match next {
                Some(job) => return job,
                None => self.more_taken_over.notified().await,
            }
        }
    }

    /// Returns a permit if one is free now. The reserved permits are only for the first job of an
    /// organization.
    pub(super) fn free_permit(&self, share: &TenantShare) -> Option<Permit> {
        let kept = || {
            share
                .is_first
                .then(|| Arc::clone(&self.kept).try_acquire_owned().ok())
                .flatten()
        };
        let permit = Arc::clone(&self.permits)
            .try_acquire_owned()
            .ok()
            .or_else(kept)?;
        Some(Permit {
            _permit: permit,
            freed: Arc::clone(&self.freed),
        })
    }

    /// Returns the number of free permits, without the reserved ones.
    #[must_use]
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// Returns the number of permits in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.capacity
            .saturating_sub(self.free() + self.kept.available_permits())
    }

    /// Returns the number of permits, with the reserved ones.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns how many jobs this lane has lately completed in a second.
    pub fn pace(&self) -> usize {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let over = pace.at.elapsed();
        if over >= PACE_OVER {
            let freed = self.freed.load(Ordering::Relaxed);
            *pace = Pace {
                seen: freed,
                at: Instant::now(),
                per_second: (freed - pace.seen) as f64 / over.as_secs_f64(),
            };
        }
        pace.per_second as usize
    }

    /// Counts a job of `organization`, or returns `None` where the organization has used its
    /// share. With `n` active organizations, the share is the `n`-th part of the permits.
    pub(super) fn share(self: &Arc<Self>, organization: &str) -> Option<TenantShare> {
        let mut active = self.active();
        active.retain(|_, one| one.running > 0 || one.last_seen.elapsed() < ACTIVE_FOR);
        let one = active.entry(organization.to_owned()).or_insert(Active {
            running: 0,
            last_seen: Instant::now(),
        });
        one.last_seen = Instant::now();
        let running = one.running;
        let organizations = active.len();
        if organizations > 1 && running >= self.capacity.div_ceil(organizations) {
            return None;
        }
        if let Some(one) = active.get_mut(organization) {
            one.running += 1;
        }
        drop(active);
        Some(TenantShare {
            limiter: Arc::clone(self),
            organization: organization.to_owned(),
            is_first: running == 0,
        })
    }

    fn active(&self) -> MutexGuard<'_, HashMap<String, Active>> {
        self.organizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loop that serves one queue.
pub struct LaneRun<P: Product, T: Tables<Changes = P::Changes>> {
    /// The worker that handles the deliveries.
    pub worker: Arc<Worker<P, T>>,
    /// The limiter whose permits the deliveries use.
    pub limiter: Arc<LaneLimiter>,
    /// The deliveries from the consumer, whose prefetch bounds them.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// The deliveries in hand; the drain waits for them.
    pub in_hand: TaskTracker,
    /// Starts one concurrent run for each delivery.
    pub spawn: Spawn,
}

impl<P: Product, T: Tables<Changes = P::Changes>> LaneRun<P, T> {
    /// Starts a concurrent run for every delivery, and for every job of a dead owner, until the
    /// consumer ends.
    pub async fn serve(mut self) {
        loop {
            let (worker, limiter) = (Arc::clone(&self.worker), Arc::clone(&self.limiter));
            tokio::select! {
                delivery = self.deliveries.recv() => match delivery {
                    Some(delivery) => self.start("delivery", async move { worker.handle(delivery, &limiter).await }),
                    None => return,
                },
                job = self.limiter.next_taken_over() => {
                    self.start("takeover", async move { worker.take_over(job, &limiter).await });
                }
            }
        }
    }

    fn start(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        (self.spawn)(name, Box::pin(self.in_hand.track_future(work)));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LANE: Lane = Lane {
        name: "dispatch",
        queue: "q",
        wake_key: "w",
    };

    #[test]
    fn one_organization_may_use_every_permit_and_two_share_them() {
        let limiter = Arc::new(LaneLimiter::new(LANE, 4));
        let first: Vec<_> = (0..4).map(|_| limiter.share("a").unwrap()).collect();
        assert!(
            limiter.share("b").is_some(),
            "b has its share however many jobs a has"
        );
        assert!(
            limiter.share("a").is_none(),
            "a is over its share while b is active"
        );
        drop(first);
        assert!(limiter.share("a").is_some());
    }

    #[test]
    fn one_waiting_intake_message_at_a_time_queues_with_wake_ups() {
        let limiter = LaneLimiter::new(LANE, 2);
        let mut permits: Vec<_> = (0..2)
            .map(|_| limiter.permit().now_or_never().unwrap())
            .collect();
        let mut intake: Vec<_> = (0..2).map(|_| Box::pin(limiter.permit_in_turn())).collect();
        for one in &mut intake {
            assert!(one.now_or_never().is_none());
        }
        let mut wake_up = Box::pin(limiter.permit());
        assert!((&mut wake_up).now_or_never().is_none());
        permits.pop();
        let first = (&mut intake[0]).now_or_never().expect("it came first");
        drop(first);
        assert!(
            (&mut intake[1]).now_or_never().is_none(),
            "it is behind the wake-up, which came after it"
        );
        assert!(wake_up.now_or_never().is_some());
        assert!((&mut intake[1]).now_or_never().is_some());
        let places: Vec<_> = std::iter::from_fn(|| limiter.waiting_place()).collect();
        assert_eq!(places.len(), usize::from(prefetch(2)));
    }

    #[test]
    fn a_dead_owner_s_job_gets_the_next_permit_ahead_of_the_line() {
        let limiter = LaneLimiter::new(LANE, 2);
        let mut permits: Vec<_> = (0..2)
            .map(|_| limiter.permit().now_or_never().unwrap())
            .collect();
        let mut wake_ups: Vec<_> = (0..3).map(|_| Box::pin(limiter.permit())).collect();
        for one in &mut wake_ups {
            assert!(one.now_or_never().is_none());
        }
        let mut taken_over = Box::pin(limiter.permit_past_line());
        assert!((&mut taken_over).now_or_never().is_none());
        permits.clear();
        assert!(
            taken_over.now_or_never().is_some(),
            "at most one wake-up gets its permit first"
        );
        let jobs: Vec<_> = (0..=TAKEN_OVER).map(|_| JobId::fresh()).collect();
        limiter.take_over(jobs.iter().copied());
        let next =
            std::iter::from_fn(|| limiter.next_taken_over().now_or_never()).collect::<Vec<_>>();
        assert_eq!(
            next,
            jobs[..TAKEN_OVER],
            "the others come with their wake-ups"
        );
    }

    #[test]
    fn an_organization_s_first_job_gets_a_permit_however_many_another_one_s_jobs_hold() {
        let limiter = Arc::new(LaneLimiter::with_intake(LANE, 8));
        let shares: Vec<_> = (0..8).map(|_| limiter.share("a").unwrap()).collect();
        let permits: Vec<_> = shares
            .iter()
            .map(|share| limiter.free_permit(share))
            .collect();
        assert_eq!(permits.iter().flatten().count(), 7);
        let (first, second) = (limiter.share("b").unwrap(), limiter.share("b").unwrap());
        let _permit = limiter.free_permit(&first).expect("a reserved one");
        assert!(limiter.free_permit(&second).is_none());
    }

    #[test]
    fn a_lane_without_intake_gives_every_permit_to_wake_ups() {
        let limiter = LaneLimiter::new(LANE, 16);
        let permits: Vec<_> = std::iter::from_fn(|| limiter.permit().now_or_never()).collect();
        assert_eq!(permits.len(), 16);
    }
}
