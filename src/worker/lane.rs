//! A lane: how many of its jobs run at a time, and whose.

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

/// Deliveries in hand for so many seats: the next ones are there when a seat becomes free.
#[must_use]
pub fn prefetch(limiters: usize) -> u16 {
    u16::try_from(limiters * 3 / 2).unwrap_or(u16::MAX).max(2)
}

/// Of so many seats of a lane that takes intake, one is kept for organizations that have none.
const ONE_KEPT_OF: usize = 8;

/// Jobs of dead owners that wait for a seat here, at most: more than one takeover frees, so that none waits for RabbitMQ.
const TAKEN_OVER: usize = 1024;

/// An organization counts as active for this long after its last delivery.
const ACTIVE_FOR: Duration = Duration::from_secs(10);

/// The seats of a lane on this replica.
pub struct LaneLimiter {
    /// The lane.
    pub lane: Lane,
    permits: Arc<Semaphore>,
    /// Of the seats, those kept for organizations that have none.
    kept: Arc<Semaphore>,
    /// Where intake waits for a seat.
    waiting_room: Semaphore,
    /// The one that stands in the queue for a seat, of wake-ups and intake.
    line: Semaphore,
    /// The one that stands in the queue for that, of intake.
    turn: Semaphore,
    taken_over: Mutex<VecDeque<JobId>>,
    more_taken_over: Notify,
    capacity: usize,
    organizations: Mutex<HashMap<String, Active>>,
    /// Whether claims are run here; otherwise deliveries only become rows.
    pub(super) runs: bool,
    /// Seats freed so far.
    freed: Arc<AtomicUsize>,
    pace: Mutex<Pace>,
}

/// How many seats are freed in a second.
struct Pace {
    seen: usize,
    at: Instant,
    per_second: f64,
}

/// A pace is looked at again after this.
const PACE_OVER: Duration = Duration::from_secs(1);

struct Active {
    running: usize,
    last_seen: Instant,
}

/// A seat in use; dropping it frees it.
pub(super) struct Permit {
    _permit: OwnedSemaphorePermit,
    freed: Arc<AtomicUsize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
    }
}

/// An organization's running job; dropping it counts it out.
pub(super) struct TenantShare {
    limiter: Arc<LaneLimiter>,
    organization: String,
    /// The organization has nothing else in hand here.
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
    /// For `capacity` jobs at a time, which all come as wake-ups.
    #[must_use]
    pub fn new(lane: Lane, capacity: usize) -> Self {
        Self::keeping(lane, capacity, 0)
    }

    /// For `capacity` jobs at a time, some of which come as intake: only those may have the seats that are kept.
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
            pace: Mutex::new(Pace { seen: 0, at: Instant::now(), per_second: 0.0 }),
        }
    }

    /// For deliveries that only become rows again: what the broker gave up.
    #[must_use]
    pub fn rows_only(lane: Lane) -> Self {
        Self { runs: false, ..Self::new(lane, 1) }
    }

    /// A free seat, when there is one.
    pub(super) async fn permit(&self) -> Permit {
        let _line = self.line.acquire().await.expect("the semaphore is never closed");
        self.permit_past_line().await
    }

    /// A free seat, when there is one, before whatever stands in line: for a job whose owner is dead.
    pub(super) async fn permit_past_line(&self) -> Permit {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        Permit { _permit: permit, freed: Arc::clone(&self.freed) }
    }

    /// A place to wait in for [`LaneLimiter::permit_in_turn`], while there is one.
    pub(super) fn waiting_place(&self) -> Option<SemaphorePermit<'_>> {
        self.waiting_room.try_acquire().ok()
    }

    /// A seat for intake, when there is one. Wake-ups are of older jobs, those of dead owners among them: of all intake that waits,
    /// only one stands in the queue with them.
    pub(super) async fn permit_in_turn(&self) -> Permit {
        let _turn = self.turn.acquire().await.expect("the semaphore is never closed");
        self.permit().await
    }

    /// Jobs of dead owners are due again: they have the next seats here, without waiting for their wake-ups to come through the
    /// queue, or for RabbitMQ to be there. A bounded number of them waits; the others are left to their wake-ups.
    pub fn take_over(&self, jobs: impl Iterator<Item = JobId>) {
        let mut waiting = self.taken_over.lock().unwrap_or_else(PoisonError::into_inner);
        let room = TAKEN_OVER.saturating_sub(waiting.len());
        waiting.extend(jobs.take(room));
        drop(waiting);
        self.more_taken_over.notify_one();
    }

    /// The next job of a dead owner, when there is one.
    async fn next_taken_over(&self) -> JobId {
        loop {
            let next = self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(job) => return job,
                None => self.more_taken_over.notified().await,
            }
        }
    }

    /// A seat that is free now; the kept ones are for the first job of an organization.
    pub(super) fn free_permit(&self, share: &TenantShare) -> Option<Permit> {
        let kept = || share.is_first.then(|| Arc::clone(&self.kept).try_acquire_owned().ok()).flatten();
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok().or_else(kept)?;
        Some(Permit { _permit: permit, freed: Arc::clone(&self.freed) })
    }

    /// Free seats now, for whoever comes.
    #[must_use]
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// Seats in all.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Jobs that this lane is done with in a second.
    pub fn pace(&self) -> usize {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let over = pace.at.elapsed();
        if over >= PACE_OVER {
            let freed = self.freed.load(Ordering::Relaxed);
            *pace = Pace { seen: freed, at: Instant::now(), per_second: (freed - pace.seen) as f64 / over.as_secs_f64() };
        }
        pace.per_second as usize
    }

    /// Counts a job of `organization` in, unless it has its share: with `n` active organizations, the `n`-th part of the seats.
    pub(super) fn share(self: &Arc<Self>, organization: &str) -> Option<TenantShare> {
        let mut active = self.active();
        active.retain(|_, one| one.running > 0 || one.last_seen.elapsed() < ACTIVE_FOR);
        let one = active.entry(organization.to_owned()).or_insert(Active { running: 0, last_seen: Instant::now() });
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
        Some(TenantShare { limiter: Arc::clone(self), organization: organization.to_owned(), is_first: running == 0 })
    }

    fn active(&self) -> MutexGuard<'_, HashMap<String, Active>> {
        self.organizations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane being served.
pub struct LaneRun<P: Product, T: Tables<Changes = P::Changes>> {
    /// Who does the work.
    pub worker: Arc<Worker<P, T>>,
    /// Where.
    pub limiter: Arc<LaneLimiter>,
    /// From the consumer; bounded by its prefetch.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// The deliveries in hand, awaited by the drain.
    pub in_hand: TaskTracker,
    /// Starts one piece of work a delivery.
    pub spawn: Spawn,
}

impl<P: Product, T: Tables<Changes = P::Changes>> LaneRun<P, T> {
    /// Hands every delivery, and every job of a dead owner, to a piece of work of its own until the consumer ends.
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

    const LANE: Lane = Lane { name: "dispatch", queue: "q", wake_key: "w" };

    #[test]
    fn one_organization_may_use_every_seat_and_two_share_them() {
        let limiter = Arc::new(LaneLimiter::new(LANE, 4));
        let first: Vec<_> = (0..4).map(|_| limiter.share("a").unwrap()).collect();
        assert!(limiter.share("b").is_some(), "b has its share whatever a has");
        assert!(limiter.share("a").is_none(), "a is over its share while b is active");
        drop(first);
        assert!(limiter.share("a").is_some());
    }

    #[test]
    fn of_all_intake_that_waits_one_stands_in_the_queue_with_wake_ups() {
        let limiter = LaneLimiter::new(LANE, 2);
        let mut permits: Vec<_> = (0..2).map(|_| limiter.permit().now_or_never().unwrap()).collect();
        let mut intake: Vec<_> = (0..2).map(|_| Box::pin(limiter.permit_in_turn())).collect();
        for one in &mut intake {
            assert!(one.now_or_never().is_none());
        }
        let mut wake_up = Box::pin(limiter.permit());
        assert!((&mut wake_up).now_or_never().is_none());
        permits.pop();
        let first = (&mut intake[0]).now_or_never().expect("it came first");
        drop(first);
        assert!((&mut intake[1]).now_or_never().is_none(), "it is behind the wake-up, which came after it");
        assert!(wake_up.now_or_never().is_some());
        assert!((&mut intake[1]).now_or_never().is_some());
        let places: Vec<_> = std::iter::from_fn(|| limiter.waiting_place()).collect();
        assert_eq!(places.len(), usize::from(prefetch(2)));
    }

    #[test]
    fn a_dead_owner_s_job_has_the_next_seat_whoever_stands_in_line() {
        let limiter = LaneLimiter::new(LANE, 2);
        let mut permits: Vec<_> = (0..2).map(|_| limiter.permit().now_or_never().unwrap()).collect();
        let mut wake_ups: Vec<_> = (0..3).map(|_| Box::pin(limiter.permit())).collect();
        for one in &mut wake_ups {
            assert!(one.now_or_never().is_none());
        }
        let mut taken_over = Box::pin(limiter.permit_past_line());
        assert!((&mut taken_over).now_or_never().is_none());
        permits.clear();
        assert!(taken_over.now_or_never().is_some(), "one wake-up at most has its permit before");
        let jobs: Vec<_> = (0..=TAKEN_OVER).map(|_| JobId::fresh()).collect();
        limiter.take_over(jobs.iter().copied());
        let next = std::iter::from_fn(|| limiter.next_taken_over().now_or_never()).collect::<Vec<_>>();
        assert_eq!(next, jobs[..TAKEN_OVER], "the others come with their wake-ups");
    }

    #[test]
    fn an_organization_s_first_job_has_a_seat_however_many_another_one_s_jobs_take() {
        let limiter = Arc::new(LaneLimiter::with_intake(LANE, 8));
        let shares: Vec<_> = (0..8).map(|_| limiter.share("a").unwrap()).collect();
        let permits: Vec<_> = shares.iter().map(|share| limiter.free_permit(share)).collect();
        assert_eq!(permits.iter().flatten().count(), 7);
        let (first, second) = (limiter.share("b").unwrap(), limiter.share("b").unwrap());
        let _permit = limiter.free_permit(&first).expect("a kept one");
        assert!(limiter.free_permit(&second).is_none());
    }

    #[test]
    fn where_no_intake_comes_wake_ups_have_every_seat() {
        let limiter = LaneLimiter::new(LANE, 16);
        let permits: Vec<_> = std::iter::from_fn(|| limiter.permit().now_or_never()).collect();
        assert_eq!(permits.len(), 16);
    }
}
