//! One incarnation of a worker process: its lease, its consumers and its lanes, until the lease is
//! lost or the drain is over.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::TrackerTables;
use super::lanes::IncarnationLanes;
use crate::broker::ByteBudget;
use crate::config::WorkerSettings;
use crate::engine::{Lane, Spawn};
use crate::holds::StoredHolds;
use crate::maintenance::{Duties, Incarnation};
use crate::pipelines::Dispatch;
use crate::readiness::WorkerReadiness;
use crate::reconnect::Reconnect;
use crate::store::{Heartbeat, NewReplica, StoreError};
use crate::tls_policy::Endpoint;
use crate::worker::{
    IntakeThrottle, Lease, QuotaLimits, Quotas, Worker, WorkerContext, beat, begin,
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
    /// Runs incarnations, one after the other, until the drain.
    pub(super) async fn run_until_drained(&self) {
        let mut reconnect = Reconnect::default();
        while !self.drain.is_cancelled() {
            if self.incarnation().await {
                reconnect.reset();
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(reconnect.next_delay()) => {}
                () = self.drain.cancelled() => {}
            }
        }
    }

    /// Runs one incarnation until its lease is lost or the drain is over. Returns `false` if it
    /// could not begin.
    async fn incarnation(&self) -> bool {
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
        let heartbeat = beat(
            heartbeat,
            Arc::clone(&lease),
            self.drain.clone(),
            over.clone(),
        );
        (self.spawn)("heartbeat", Box::pin(heartbeat));
        let context = self.context.for_incarnation();
        let quotas = self.quotas(&lease);
        let worker = Arc::new(Worker::new(
            context.clone(),
            Arc::clone(&lease),
            self.drain.clone(),
            Arc::clone(&throttle),
            Arc::clone(&quotas),
        ));
        let in_hand = TaskTracker::new();
        let lanes = IncarnationLanes {
            process: self,
            worker: &worker,
            lease: &lease,
            throttle: &throttle,
            in_hand: &in_hand,
            over: &over,
        };
        let incarnation = Incarnation {
            limiters: lanes.start(),
            context,
            lease: Arc::clone(&lease),
            throttle,
            quotas,
        };
        for (duty, task) in incarnation.duties(&self.duties, &over) {
            (self.spawn)(duty, task);
        }
        self.until_lost_or_drained(&lease, &in_hand).await;
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

    fn quotas(&self, lease: &Lease) -> Arc<Quotas> {
        let settings = &self.settings.quotas;
        let limits = QuotaLimits {
            producer: settings.producer_quotas,
            organization: settings.organization_quotas,
        };
        let store = self.context.store().clone();
        Arc::new(Quotas::new(store, lease.replica(), limits))
    }

    pub(super) fn lanes(&self) -> Vec<Lane> {
        self.context
            .registry
            .iter()
            .map(|pipeline| pipeline.lane)
            .collect()
    }

    /// Waits until the lease is lost, or until the deliveries in hand at the drain are finished.
    async fn until_lost_or_drained(&self, lease: &Lease, in_hand: &TaskTracker) {
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
    }
}
