//! ★ The duties of a replica, which run beside the path of its jobs: a file for each, with an
//! interval, a time limit and a metric of its own.
//!
//! **Invariant:** no duty waits for another one, and a duty that needs only Postgres never waits
//! for RabbitMQ.

mod backlog;
mod campaigns;
mod causes;
mod deadlines;
mod due;
mod duty;
mod events;
mod failures;
mod headers;
mod holds;
mod intake;
mod load;
mod orphans;
mod partitions;
mod quotas;
mod releases;
mod replays;
mod retention;
mod stamps;
mod stuck;
mod takeover;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use duty::{Duties, Duty, DutyError, DutyStatus, Plan, keep};
pub use retention::{Retention, RetentionError};

use crate::broker::Publisher;
use crate::engine::Product;
use crate::secrets::Keyring;
use crate::store::{
    CauseCursor, Count, HoldCursor, Keep, PipelineLanes, SightingCursor, Store, Tables,
};
use crate::tracker::Tracker;
use crate::worker::{DueAnnouncements, IntakeThrottle, LaneLimiter, Lease, Quotas, WorkerContext};

/// A named future, for `app` to spawn.
pub type Task = (&'static str, BoxFuture<'static, ()>);

/// The parts of an incarnation that its duties work with.
pub struct Incarnation<P: Product, T: Tables<Changes = P::Changes>> {
    pub context: WorkerContext<P, T>,
    pub lease: Arc<Lease>,
    /// The limiters of the lanes; the first is that of the lane that takes intake.
    pub limiters: Vec<Arc<LaneLimiter>>,
    /// Decides how intake is taken.
    pub throttle: Arc<IntakeThrottle>,
    pub quotas: Arc<Quotas>,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Incarnation<P, T> {
    /// ★ Returns the duties of an incarnation, each a future that runs until `end`.
    pub fn duties(self, duties: &Arc<Duties>, end: &CancellationToken) -> Vec<Task> {
        let Self {
            context,
            lease,
            limiters,
            throttle,
            quotas,
        } = self;
        let (replica, store) = (lease.replica(), context.store().clone());
        let keeping = Keeping { duties, end };
        let (count, made) = (Count::default(), throttle.made());
        let lanes = PipelineLanes::of(&context.registry);
        let mut tasks = vec![
            keeping.task(due::Due {
                context: context.clone(),
                replica,
                limiters: limiters.clone(),
                circles: HashMap::new(),
            }),
            keeping.task(takeover::Takeover {
                context: context.clone(),
                replica,
                limiters: limiters.clone(),
            }),
            keeping.task(stamps::TakeBack {
                context: context.clone(),
                replica,
            }),
            keeping.task(orphans::Orphans {
                context: context.clone(),
                replica,
            }),
            keeping.task(causes::Causes {
                context: context.clone(),
                at: CauseCursor::default(),
            }),
            keeping.task(releases::Releases(store.clone())),
            keeping.task(holds::AfterHolds {
                store: store.clone(),
                at: HoldCursor::default(),
            }),
            keeping.task(deadlines::Deadlines(store.clone())),
            keeping.task(quotas::TidyQuotas {
                store: store.clone(),
                quotas,
            }),
            keeping.task(stuck::CountStuck::new(store.clone(), lanes)),
            keeping.task(load::MeasureLoad {
                store: store.clone(),
                pipelines: pipelines(&context, &limiters),
                database_at: None,
            }),
            keeping.task(backlog::CountBacklog {
                store,
                throttle: Arc::clone(&throttle),
                count,
                made,
            }),
        ];
        let intake_lane = context.registry.intake().lane;
        if let Some(limiter) = limiters
            .into_iter()
            .find(|limiter| limiter.lane == intake_lane)
        {
            tasks.push(keeping.task(intake::LookAtIntake {
                publisher: context.publisher,
                throttle,
                limiter,
            }));
        }
        tasks
    }
}

/// Returns each pipeline with the limiter of its lane.
fn pipelines<P: Product, T: Tables<Changes = P::Changes>>(
    context: &WorkerContext<P, T>,
    limiters: &[Arc<LaneLimiter>],
) -> Vec<(&'static str, Arc<LaneLimiter>)> {
    let pipelines = context.registry.iter();
    pipelines
        .filter_map(|pipeline| {
            let limiter = limiters
                .iter()
                .find(|limiter| limiter.lane == pipeline.lane)?;
            Some((pipeline.name, Arc::clone(limiter)))
        })
        .collect()
}

/// ★ Returns the duties of a process, which need no lease: each a future that runs until `end`,
/// across all incarnations.
pub fn duties_of_process(
    (store, tracker, keyring): (Store, Tracker, Arc<Keyring>),
    (publisher, due_announcements): (Publisher, DueAnnouncements),
    keep: Keep,
    duties: &Arc<Duties>,
    end: &CancellationToken,
) -> Vec<Task> {
    let keeping = Keeping { duties, end };
    vec![
        keeping.task(events::Events(due_announcements)),
        keeping.task(campaigns::Campaigns(store.clone())),
        keeping.task(partitions::KeepPartitions(store.clone())),
        keeping.task(headers::SealHeaders {
            store: store.clone(),
            keyring: Arc::clone(&keyring),
        }),
        keeping.task(replays::Replays {
            store: store.clone(),
            publisher,
            keyring,
        }),
        keeping.task(failures::SeeFailures {
            store: store.clone(),
            cursor: SightingCursor::default(),
        }),
        keeping.task(retention::Sweep {
            retention: Retention::new(keep),
            store,
            tracker,
        }),
    ]
}

struct Keeping<'a> {
    duties: &'a Arc<Duties>,
    end: &'a CancellationToken,
}

impl Keeping<'_> {
    fn task<D: Duty>(&self, duty: D) -> Task {
        (
            D::PLAN.name,
            keep(duty, Arc::clone(self.duties), self.end.clone()).boxed(),
        )
    }
}
