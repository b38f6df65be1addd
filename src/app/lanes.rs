//! The lanes of one incarnation: a consumer and a lane loop for each queue, and the checks that
//! they receive.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::TrackerTables;
use super::incarnation::Process;
use crate::broker::{CONTROL_QUEUE, INTAKE_QUEUE, LaneInput, PARKED_QUEUE, QueueConsumer};
use crate::engine::Lane;
use crate::pipelines::Dispatch;
use crate::readiness::LaneHealth;
use crate::telemetry::names;
use crate::worker::{
    IntakeThrottle, LaneLimiter, LaneRun, LaneWatch, Lease, Worker, check_lanes, prefetch,
};

/// The parts of one incarnation that its lanes share.
pub(super) struct IncarnationLanes<'a> {
    pub(super) process: &'a Process,
    pub(super) worker: &'a Arc<Worker<Dispatch, TrackerTables>>,
    pub(super) lease: &'a Arc<Lease>,
    pub(super) throttle: &'a Arc<IntakeThrottle>,
    /// The runs of deliveries, for the drain.
    pub(super) in_hand: &'a TaskTracker,
    /// Cancelled when the incarnation is over.
    pub(super) over: &'a CancellationToken,
}

impl IncarnationLanes<'_> {
    /// Starts a consumer and a lane loop for each queue. Returns the limiters of the lanes.
    pub(super) fn start(&self) -> Vec<Arc<LaneLimiter>> {
        let limiters = self.limiters();
        let (mut watches, mut health) = (Vec::new(), Vec::new());
        for served in self.queues(&limiters) {
            let is_checked = served.queue != PARKED_QUEUE;
            let (queue_health, watch) = self.serve(served);
            if is_checked {
                health.push(queue_health);
                watches.push(watch);
            }
        }
        let process = self.process;
        process
            .readiness
            .incarnation(Arc::clone(self.lease), health, Arc::clone(self.throttle));
        let publisher = process.context.publisher.clone();
        (process.spawn)(
            "consumer_liveness",
            Box::pin(check_lanes(watches, publisher, self.over.child_token())),
        );
        limiters
    }

    /// Returns the limiter of each lane, the one of intake first. Intake uses the permits of the
    /// lane that also gets the jobs' wake-ups.
    fn limiters(&self) -> Vec<Arc<LaneLimiter>> {
        let intake_lane = self.process.context.registry.intake().lane;
        let limiter = |lane: Lane, new: fn(Lane, usize) -> LaneLimiter| {
            let permits = self.process.settings.concurrency_of(lane.name);
            metrics::gauge!(names::PERMITS, "lane" => lane.name).set(permits as f64);
            Arc::new(new(lane, permits))
        };
        let lanes = self.process.lanes().into_iter();
        let others = lanes.filter(|lane| *lane != intake_lane);
        std::iter::once(limiter(intake_lane, LaneLimiter::with_intake))
            .chain(others.map(|lane| limiter(lane, LaneLimiter::new)))
            .collect()
    }

    /// Returns the queues to consume: the one of each lane, then intake, control and parked
    /// wake-ups.
    fn queues(&self, limiters: &[Arc<LaneLimiter>]) -> Vec<Served> {
        let intake_limiter = &limiters[0];
        let mut queues: Vec<Served> = limiters
            .iter()
            .map(|limiter| Served::with_fixed_prefetch(limiter.lane.queue, limiter))
            .collect();
        let intake = Served {
            name: "intake",
            prefetch: self.throttle.prefetch(),
            ..Served::with_fixed_prefetch(INTAKE_QUEUE, intake_limiter)
        };
        let rows_only = |queue| {
            let limiter = Arc::new(LaneLimiter::rows_only(intake_limiter.lane));
            Served::with_fixed_prefetch(queue, &limiter)
        };
        let control = Served {
            name: "control",
            ..rows_only(CONTROL_QUEUE)
        };
        queues.extend([intake, control, rows_only(PARKED_QUEUE)]);
        queues
    }

    /// Starts the consumer and the lane loop of one queue.
    fn serve(&self, served: Served) -> (LaneHealth, LaneWatch) {
        let Served {
            name,
            queue,
            limiter,
            prefetch,
        } = served;
        let process = self.process;
        let (deliveries, received) = mpsc::channel(HANDED_OVER);
        let (last_received, last) = watch::channel(Instant::now());
        let input = LaneInput {
            queue,
            prefetch: prefetch.clone(),
            deliveries,
            last_received,
        };
        let consumer = QueueConsumer::new(&process.amqp_url, input, process.budget.clone());
        let (link, rebuild) = (consumer.link(), consumer.rebuild());
        let consuming = consume(
            consumer,
            process.drain.child_token(),
            self.over.clone(),
            self.lease.lost(),
        );
        (process.spawn)("consumer", Box::pin(consuming));
        let run = LaneRun {
            worker: Arc::clone(self.worker),
            limiter: Arc::clone(&limiter),
            deliveries: received,
            in_hand: self.in_hand.clone(),
            spawn: Arc::clone(&process.spawn),
        };
        (process.spawn)("lane", Box::pin(run.serve()));
        let (stalled, is_stalled) = watch::channel(false);
        let health = LaneHealth {
            name,
            stalled: is_stalled,
            link,
        };
        let watch = LaneWatch {
            limiter,
            queue,
            prefetch,
            last_received: last,
            stalled,
            rebuild,
        };
        (health, watch)
    }
}

/// The most deliveries between a consumer and its lane loop, which takes them at once.
const HANDED_OVER: usize = 64;

/// A queue, and the limiter whose permits its deliveries use.
struct Served {
    name: &'static str,
    queue: &'static str,
    limiter: Arc<LaneLimiter>,
    prefetch: watch::Receiver<u16>,
}

impl Served {
    fn with_fixed_prefetch(queue: &'static str, limiter: &Arc<LaneLimiter>) -> Self {
        let (_, prefetch) = watch::channel(prefetch(limiter.capacity()));
        Self {
            name: limiter.lane.name,
            queue,
            limiter: Arc::clone(limiter),
            prefetch,
        }
    }
}

/// Consumes a queue until the drain, or drops the consumer when the lease is lost.
async fn consume(
    consumers: QueueConsumer,
    stop: CancellationToken,
    close: CancellationToken,
    lost: CancellationToken,
) {
    tokio::select! {
        () = consumers.run(stop, close) => {}
        () = lost.cancelled() => {}
    }
}
