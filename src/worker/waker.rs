//! The waker: publishes for rows that are due and not woken, frees the jobs of dead owners, publishes what was not announced,
//! and tests again whether causes are gone. Each replica runs one; rows locked by another are skipped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::announcer::announce;
use super::inflow::Inflow;
use super::lane::Seat;
use super::lease::Lease;
use super::parts::Parts;
use super::unknown::version_key;
use crate::broker::{Depth, INTAKE_QUEUE};
use crate::engine::Product;
use crate::fault::chain;
use crate::store::{CauseCursor, CommitError, HoldCursor, StoreError, Tables};
use crate::telemetry::names;

const EVERY: Duration = Duration::from_millis(200);
/// A wake-up that nobody claimed is published again after this, where its queue is empty.
const STALE: Duration = Duration::from_secs(5);
/// And after this, whatever its queue holds.
const STALE_ANYHOW: Duration = Duration::from_secs(600);
const DEADLINES_EVERY: Duration = Duration::from_secs(5);
const HOLDS_EVERY: Duration = Duration::from_secs(1);
const RELEASES_EVERY: Duration = Duration::from_secs(1);
const CAUSES_EVERY: Duration = Duration::from_secs(300);
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(3600);
const ORPHANS_EVERY: Duration = Duration::from_secs(2);
const BACKLOG_EVERY: Duration = Duration::from_secs(2);
/// Batches of old rows forgotten in one round of housekeeping, at most.
const PRUNE_ROUNDS: usize = 1000;

struct Waker<P: Product, T: Tables<Changes = P::Changes>> {
    parts: Parts<P, T>,
    lease: Arc<Lease>,
    /// Of the lanes; the first one's take intake, too.
    seats: Vec<Arc<Seat>>,
    inflow: Arc<Inflow>,
}

/// Runs until `end`. Trouble with Postgres or RabbitMQ is logged and tried again at the next tick.
pub async fn wake_due<P: Product, T: Tables<Changes = P::Changes>>(
    parts: Parts<P, T>,
    lease: Arc<Lease>,
    (seats, inflow): (Vec<Arc<Seat>>, Arc<Inflow>),
    end: CancellationToken,
) {
    let waker = Waker { parts, lease, seats, inflow };
    let run = async {
        waker.release_known_versions().await;
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut orphans, mut deadlines) = (Every::new(ORPHANS_EVERY), Every::new(DEADLINES_EVERY));
        let (mut holds, mut backlog) = (Every::new(HOLDS_EVERY), Every::new(BACKLOG_EVERY));
        let (mut releases, mut cause_cursor) = (Every::new(RELEASES_EVERY), CauseCursor::default());
        let mut hold_cursor = HoldCursor::default();
        let (mut causes, mut housekeeping) = (Every::new(CAUSES_EVERY), Every::new(HOUSEKEEPING_EVERY));
        loop {
            ticks.tick().await;
            waker.tick().await;
            if backlog.due() {
                log("backlog", waker.look_at_backlog().await);
            }
            if orphans.due() {
                log("orphans", waker.free_orphans().await);
            }
            if deadlines.due() {
                log("deadlines", waker.park_overdue().await);
            }
            if holds.due() {
                log("holds", waker.step_after_holds(&mut hold_cursor).await);
            }
            if releases.due() {
                log("releases", waker.step_releases().await);
            }
            if causes.due() {
                log("causes", waker.retest(&mut cause_cursor).await);
                waker.release_known_versions().await;
            }
            if housekeeping.due() {
                log("partitions", waker.parts.store().ensure_partitions().await);
                log("old rows", waker.prune().await);
                log("old holds", waker.parts.store().forget_holds().await.map(|_| ()));
            }
        }
    };
    tokio::select! {
        () = run => {}
        () = end.cancelled() => {}
    }
}

impl<P: Product, T: Tables<Changes = P::Changes>> Waker<P, T> {
    async fn tick(&self) {
        log("dead owners", self.free_dead().await);
        self.look_at_intake().await;
        for seat in &self.seats {
            log("due jobs", self.wake_lane(seat).await);
        }
        match self.parts.store().due_announcements().await {
            Ok(due) => announce(&self.parts.publisher, &self.parts.writer, &due).await,
            Err(error) => log("announcements", Err(error)),
        }
    }

    async fn free_dead(&self) -> Result<(), StoreError> {
        let freed = self.parts.store().free_dead(self.lease.replica()).await?;
        let jobs = freed.wake.len() + freed.parked;
        if !freed.replicas.is_empty() || jobs > 0 {
            metrics::counter!(names::TAKEOVERS).increment(jobs as u64);
            tracing::warn!(replicas = ?freed.replicas, jobs, parked = freed.parked, "took over from dead replicas");
        }
        for seat in &self.seats {
            let ours = |pipeline: &str| self.parts.registry.get(pipeline).is_some_and(|known| known.lane == seat.lane);
            seat.take_over(freed.wake.iter().filter(|(_, pipeline)| ours(pipeline)).map(|(job, _)| *job));
        }
        self.parts.wake(&freed.wake).await;
        Ok(())
    }

    /// Rows that show us as their owner though nobody here has them in hand: a write whose answer was lost.
    async fn free_orphans(&self) -> Result<(), StoreError> {
        let mut orphans = self.parts.store().owned(self.lease.replica()).await?;
        // Looked at after the rows were read: whoever claims takes its job in hand first.
        orphans.retain(|(job, _)| !self.parts.running.has(*job));
        for (job, epoch) in orphans {
            if self.parts.store().free_orphan(self.lease.replica(), job, epoch).await? {
                tracing::warn!(job.id = %job, "a job of ours was in nobody's hand; it is due again");
            }
        }
        Ok(())
    }

    /// Forgets what is 30 days old, a bounded number at a time.
    async fn prune(&self) -> Result<(), StoreError> {
        for _ in 0..PRUNE_ROUNDS {
            let keys = self.parts.store().prune_keys().await?;
            let jobs = self.parts.store().prune_jobs().await?;
            let letters = self.parts.store().prune_dead_letters().await?;
            if keys + jobs + letters == 0 {
                break;
            }
        }
        Ok(())
    }

    async fn depth(&self, queue: &'static str) -> Option<Depth> {
        let depth = self.parts.publisher.depth(queue).await;
        depth.inspect_err(|error| tracing::warn!(queue, error = chain(error), "a queue cannot be looked at")).ok()
    }

    /// More intake than a second's work becomes rows.
    async fn look_at_intake(&self) {
        let (Some(seat), Some(depth)) = (self.seats.first(), self.depth(INTAKE_QUEUE).await) else { return };
        self.inflow.queue_holds(depth.ready as usize, seat.pace().max(2 * seat.capacity()));
    }

    /// More jobs in Postgres than the operator wants stop intake.
    async fn look_at_backlog(&self) -> Result<(), StoreError> {
        let made = self.inflow.made();
        self.inflow.backlog_is(self.parts.store().backlog(self.inflow.backlog_limit).await?, made);
        Ok(())
    }

    /// Fills the lane's queue up to twice its capacity, or what it does until the tick after the next; the rest of a backlog
    /// stays in Postgres, in fair order.
    async fn wake_lane(&self, seat: &Seat) -> Result<(), StoreError> {
        let Some(depth) = self.depth(seat.lane.queue).await else { return Ok(()) };
        let soon = seat.pace() * 2 * EVERY.as_millis() as usize / 1000;
        let room = soon.max(2 * seat.capacity()).saturating_sub(depth.ready as usize);
        if room == 0 {
            return Ok(());
        }
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let stale = if depth.ready == 0 { STALE } else { STALE_ANYHOW };
        for pipeline in self.parts.registry.iter().filter(|pipeline| pipeline.lane == seat.lane) {
            let mut due = self.parts.store().take_due(pipeline.name, limit).await?;
            due.extend(self.parts.store().take_stale(pipeline.name, limit, stale).await?);
            let wake: Vec<_> = due.into_iter().map(|job| (job, pipeline.name.to_owned())).collect();
            self.parts.wake(&wake).await;
        }
        Ok(())
    }

    async fn park_overdue(&self) -> Result<(), StoreError> {
        while self.parts.store().park_overdue().await? {}
        Ok(())
    }

    async fn step_after_holds(&self, at: &mut HoldCursor) -> Result<(), StoreError> {
        while self.parts.store().step_after_holds(at).await? {}
        Ok(())
    }

    async fn step_releases(&self) -> Result<(), StoreError> {
        while self.parts.store().step_releases().await? {}
        Ok(())
    }

    async fn retest(&self, at: &mut CauseCursor) -> Result<(), StoreError> {
        loop {
            match self.parts.writer.retest_causes(at).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(CommitError::Store(error)) => return Err(error),
                Err(error) => tracing::warn!(error = chain(&error), "a cause cannot be tested; the others are"),
            }
        }
    }

    /// Jobs that waited for a worker that knows them have found one.
    async fn release_known_versions(&self) {
        let mut keys: Vec<String> = (1..=self.parts.known_schema).map(|schema| format!("schema:{schema}")).collect();
        for pipeline in self.parts.registry.iter() {
            keys.push(version_key(pipeline.name));
            for stage in pipeline.stages() {
                keys.extend(
                    (1..=stage.version).map(|version| version_key(&format!("{}/{}@{version}", pipeline.name, stage.name))),
                );
            }
        }
        for key in keys {
            log("versions", self.parts.store().begin_release(&key).await.map(|_| ()));
        }
    }
}

fn log(what: &str, done: Result<(), StoreError>) {
    if let Err(error) = done {
        tracing::warn!(what, error = chain(&error), "the waker could not look; it looks again");
    }
}

/// Says when a rarer duty is due.
struct Every {
    period: Duration,
    last: Instant,
}

impl Every {
    fn new(period: Duration) -> Self {
        Self { period, last: Instant::now() }
    }

    fn due(&mut self) -> bool {
        let due = self.last.elapsed() >= self.period;
        if due {
            self.last = Instant::now();
        }
        due
    }
}
