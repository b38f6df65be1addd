//! One incarnation of a worker process: its lease, its consumers and its lanes, until the lease is
//! lost or the drain is over.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::TrackerTables;
use crate::broker::{
    ByteBudget, CONTROL_QUEUE, INTAKE_QUEUE, LaneInput, PARKED_QUEUE, QueueConsumer,
};
use crate::config::WorkerSettings;
use crate::engine::{Lane, Spawn};
use crate::holds::StoredHolds;
use crate::maintenance::{Duties, Incarnation};
use crate::pipelines::Dispatch;
use crate::readiness::{LaneHealth, WorkerReadiness};
use crate::store::{Heartbeat, NewReplica, StoreError};
use crate::tls_policy::Endpoint;
use crate::worker::{
    IntakeThrottle, LaneLimiter, LaneRun, LaneWatch, Lease, QuotaLimits, Quotas, Worker,
    WorkerContext, beat, begin, deafness, prefetch,
};

/// The parts that live as long as the process, across its incarnations.
pub(super) struct Process {
    pub(super) database_url: Endpoint,
    pub(super) amqp_url: Endpoint,
    pub(super) settings: WorkerSettings,
    pub(super) budget: ByteBudget,
    pub(super) context: WorkerContext<Dispatch, TrackerTables>,
    pub(super) holds: Arc<StoredHolds>,
    pub(super) readiness: Arc<WorkerReadiness>,
    pub(super) duties: Arc<Duties>,
    /// Identifies the process; all its incarnations share it.
    pub(super) id: Uuid,
    pub(super) spawn: Spawn,
    pub(super) drain: CancellationToken,
}

impl Process {
    /// Runs one incarnation until its lease is lost or the drain is over. Returns `false` if it
    /// could not begin.
    pub(super) async fn incarnation(&self) -> bool {
        let (throttle, (heartbeat, lease)) = match self.begin().await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::warn!(
                    error = crate::fault::chain(&error),
                    "no incarnation can begin yet; the worker tries again"
                );
                return false;
            }
        };
        tracing::info!(replica = %lease.replica(), "a new incarnation has begun");
        self.holds.act_as(lease.replica());
        let over = CancellationToken::new();
        (self.spawn)(
            "heartbeat",
            Box::pin(beat(
                heartbeat,
                Arc::clone(&lease),
                self.drain.clone(),
                over.clone(),
            )),
        );
        let context = self.context.for_incarnation();
        let quotas = &self.settings.quotas;
        let limits = QuotaLimits {
            producer: quotas.producer_quotas,
            organization: quotas.organization_quotas,
        };
        let quotas = Arc::new(Quotas::new(
            context.store().clone(),
            lease.replica(),
            limits,
        ));
        let (drain, throttle_too, quotas_too) = (
            self.drain.clone(),
            Arc::clone(&throttle),
            Arc::clone(&quotas),
        );
        let worker = Arc::new(Worker::new(
            context.clone(),
            Arc::clone(&lease),
            drain,
            throttle_too,
            quotas_too,
        ));
        let in_hand = TaskTracker::new();
        let limiters = self.serve(&worker, &throttle, &in_hand, (&lease, &over));
        let incarnation = Incarnation {
            context,
            lease: Arc::clone(&lease),
            limiters,
            throttle,
            quotas,
        };
        for (duty, task) in incarnation.duties(&self.duties, &over) {
            (self.spawn)(duty, task);
        }
        let lost = lease.lost();
        tokio::select! {
            () = lost.cancelled() => {}
            () = self.drain.cancelled() => {
                in_hand.close();
                if tokio::time::timeout(self.settings.drain(), in_hand.wait()).await.is_err() {
                    tracing::warn!(in_hand = in_hand.len(), "the drain took too long; other replicas take over the jobs in hand");
                }
            }
        }
        over.cancel();
        true
    }

    /// Counts the backlog before any intake is taken, then begins the heartbeat.
    async fn begin(&self) -> Result<(Arc<IntakeThrottle>, (Heartbeat, Arc<Lease>)), StoreError> {
        let limit = self.settings.backlog_limit;
        let backlog = self.context.store().backlog(limit).await?;
        let throttle = Arc::new(IntakeThrottle::new(
            usize::from(self.settings.concurrency),
            limit,
            backlog,
        ));
        let new = NewReplica {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            pid: i32::try_from(std::process::id()).unwrap_or_default(),
            process: self.id,
            lanes: self
                .lanes()
                .iter()
                .map(|lane| lane.name.to_owned())
                .collect(),
        };
        Ok((
            throttle,
            begin(&self.database_url, &new, &self.spawn).await?,
        ))
    }

    fn lanes(&self) -> Vec<Lane> {
        self.context
            .registry
            .iter()
            .map(|pipeline| pipeline.lane)
            .collect()
    }

    /// Starts a consumer and a lane loop for each queue. Returns the limiters of the lanes.
    fn serve(
        &self,
        worker: &Arc<Worker<Dispatch, TrackerTables>>,
        throttle: &Arc<IntakeThrottle>,
        in_hand: &TaskTracker,
        (lease, over): (&Arc<Lease>, &CancellationToken),
    ) -> Vec<Arc<LaneLimiter>> {
        let intake_lane = self.context.registry.intake().lane;
        let limiter = |lane: Lane, new: fn(Lane, usize) -> LaneLimiter| {
            Arc::new(new(lane, self.settings.concurrency_of(lane.name)))
        };
        // Intake uses the permits of the lane that also gets the jobs' wake-ups.
        let intake_limiter = limiter(intake_lane, LaneLimiter::with_intake);
        let others = self.lanes().into_iter().filter(|lane| *lane != intake_lane);
        let limiters: Vec<_> = std::iter::once(Arc::clone(&intake_limiter))
            .chain(others.map(|lane| limiter(lane, LaneLimiter::new)))
            .collect();
        let mut queues: Vec<Served> = limiters
            .iter()
            .map(|limiter| Served::steadily(limiter.lane.queue, limiter))
            .collect();
        let intake = Served {
            name: "intake",
            prefetch: throttle.prefetch(),
            ..Served::steadily(INTAKE_QUEUE, &intake_limiter)
        };
        let rows_only =
            |queue| Served::steadily(queue, &Arc::new(LaneLimiter::rows_only(intake_lane)));
        let control = Served {
            name: "control",
            ..rows_only(CONTROL_QUEUE)
        };
        queues.extend([intake, control, rows_only(PARKED_QUEUE)]);
        let (mut watches, mut health) = (Vec::new(), Vec::new());
        for Served {
            name,
            queue,
            limiter,
            prefetch,
        } in queues
        {
            let (deliveries, received) = mpsc::channel(HANDED_OVER);
            let (last_received, last) = watch::channel(Instant::now());
            let input = LaneInput {
                queue,
                prefetch: prefetch.clone(),
                deliveries,
                last_received,
            };
            let consumer = QueueConsumer::new(&self.amqp_url, input, self.budget.clone());
            let (link, rebuild) = (consumer.link(), consumer.rebuild());
            (self.spawn)(
                "consumer",
                Box::pin(consume(
                    consumer,
                    self.drain.child_token(),
                    over.clone(),
                    lease.lost(),
                )),
            );
            let (worker, in_hand, spawn) =
                (Arc::clone(worker), in_hand.clone(), Arc::clone(&self.spawn));
            let run = LaneRun {
                worker,
                limiter: Arc::clone(&limiter),
                deliveries: received,
                in_hand,
                spawn,
            };
            (self.spawn)("lane", Box::pin(run.serve()));
            if queue != PARKED_QUEUE {
                let (deaf, hears) = watch::channel(false);
                health.push(LaneHealth {
                    name,
                    deaf: hears,
                    link,
                });
                watches.push(LaneWatch {
                    limiter,
                    queue,
                    prefetch,
                    last_received: last,
                    deaf,
                    rebuild,
                });
            }
        }
        self.readiness
            .incarnation(Arc::clone(lease), health, Arc::clone(throttle));
        (self.spawn)(
            "deafness",
            Box::pin(deafness(
                watches,
                self.context.publisher.clone(),
                over.child_token(),
            )),
        );
        limiters
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
    fn steadily(queue: &'static str, limiter: &Arc<LaneLimiter>) -> Self {
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
