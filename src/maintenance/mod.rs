//! ★ The duties of a replica beside the line: a file for each, each a named task with an interval, a bound and a metric of its own.
//!
//! **Invariant:** no duty waits for another one, and one that needs only Postgres never waits for RabbitMQ.

mod backlog;
mod causes;
mod deadlines;
mod due;
mod duty;
mod events;
mod headers;
mod holds;
mod intake;
mod orphans;
mod partitions;
mod quotas;
mod releases;
mod retention;
mod stamps;
mod takeover;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

pub use duty::{Duties, Duty, Plan, Standing, Trouble, keep};
pub use retention::{Retention, RetentionError};

use crate::engine::Product;
use crate::store::{CauseCursor, Count, HoldCursor, Keep, Store, Tables};
use crate::tracker::Tracker;
use crate::worker::{DueAnnouncements, IntakeThrottle, LaneLimiter, Lease, Quotas, WorkerContext};

/// A named task, for `app` to run.
pub type Task = (&'static str, BoxFuture<'static, ()>);

/// What the duties of one incarnation work with.
pub struct Incarnation<P: Product, T: Tables<Changes = P::Changes>> {
    /// Of this incarnation.
    pub context: WorkerContext<P, T>,
    /// Its lease.
    pub lease: Arc<Lease>,
    /// Of the lanes; the first one's take intake, too.
    pub limiters: Vec<Arc<LaneLimiter>>,
    /// How intake is taken.
    pub throttle: Arc<IntakeThrottle>,
    /// How much producers and organizations may still send.
    pub quotas: Arc<Quotas>,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Incarnation<P, T> {
    /// ★ The duties of an incarnation, each a task that runs until `end`.
    pub fn duties(self, duties: &Arc<Duties>, end: &CancellationToken) -> Vec<Task> {
        let Self { context, lease, limiters, throttle, quotas } = self;
        let (replica, store) = (lease.replica(), context.store().clone());
        let keeping = Keeping { duties, end };
        let (count, made) = (Count::default(), throttle.made());
        let mut tasks = vec![
            keeping.task(due::Due { context: context.clone(), replica, limiters: limiters.clone(), circles: HashMap::new() }),
            keeping.task(takeover::Takeover { context: context.clone(), replica, limiters: limiters.clone() }),
            keeping.task(stamps::TakeBack { context: context.clone(), replica }),
            keeping.task(orphans::Orphans { context: context.clone(), replica }),
            keeping.task(causes::Causes { context: context.clone(), at: CauseCursor::default() }),
            keeping.task(releases::Releases(store.clone())),
            keeping.task(holds::AfterHolds { store: store.clone(), at: HoldCursor::default() }),
            keeping.task(deadlines::Deadlines(store.clone())),
            keeping.task(quotas::TidyQuotas { store: store.clone(), quotas }),
            keeping.task(backlog::CountBacklog { store, throttle: Arc::clone(&throttle), count, made }),
        ];
        if let Some(limiter) = limiters.into_iter().next() {
            tasks.push(keeping.task(intake::LookAtIntake { publisher: context.publisher, throttle, limiter }));
        }
        tasks
    }
}

/// ★ The duties of a process, which need no lease: each a task that runs from its start until `end`, whatever becomes of its
/// incarnations.
pub fn duties_of_process(
    (store, tracker): (Store, Tracker),
    due_announcements: DueAnnouncements,
    keep: Keep,
    duties: &Arc<Duties>,
    end: &CancellationToken,
) -> Vec<Task> {
    let keeping = Keeping { duties, end };
    vec![
        keeping.task(events::Events(due_announcements)),
        keeping.task(partitions::KeepPartitions(store.clone())),
        keeping.task(headers::SealHeaders(store.clone())),
        keeping.task(retention::Sweep { retention: Retention::new(keep), store, tracker }),
    ]
}

struct Keeping<'a> {
    duties: &'a Arc<Duties>,
    end: &'a CancellationToken,
}

impl Keeping<'_> {
    fn task<D: Duty>(&self, duty: D) -> Task {
        (D::PLAN.name, keep(duty, Arc::clone(self.duties), self.end.clone()).boxed())
    }
}
