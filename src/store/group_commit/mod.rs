//! The group writer: claims and plain commits of many jobs in one transaction.
//!
//! A writer takes all requests that have arrived while the other groups were flushed, sends them
//! as one transaction without waiting in between, and returns its own result to every caller.
//! There is no timer: under little load, a group is one row.
//!
//! **Invariant:** a group whose rows Postgres refuses is sent again row by row, so one bad row
//! does not fail the others.
//! **Invariant:** a group commit with an unknown outcome is not sent again; each caller first
//! reads its own row.

mod flush;
mod group;
mod send;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::Pool;
use futures_util::FutureExt;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use self::flush::FlushTimes;
use self::group::{Group, ReplyTo, Request};
use super::batched_commit::{PlainCommit, PlainDone};
use super::claim::{Claimed, Wanted};
use super::error::StoreError;
use super::intake::Intaken;
use super::new_job::NewJob;

/// The requests that are not being written yet.
#[derive(Default)]
struct Waiting {
    queue: VecDeque<Request>,
    /// Number of groups that are being written.
    busy: usize,
    times: FlushTimes,
}

/// The queue of writes and its writers.
pub(super) struct Groups {
    pool: Pool,
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl Groups {
    /// Creates a queue over its own connections, whose plans look rows up by their keys even in
    /// small tables.
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            waiting: Mutex::default(),
            more: Notify::new(),
        }
    }

    pub(super) async fn intake(&self, new: Arc<NewJob>) -> Result<Intaken, StoreError> {
        self.ask(|answer| Request::Intake(new, answer)).await
    }

    pub(super) async fn claim(&self, wanted: Wanted) -> Result<Claimed, StoreError> {
        self.ask(|answer| Request::Claim(wanted, answer)).await
    }

    /// Returns `None` if the commit is fenced.
    pub(super) async fn commit(
        &self,
        commit: PlainCommit,
    ) -> Result<Option<PlainDone>, StoreError> {
        self.ask(|answer| Request::Plain(Box::new(commit), answer))
            .await
    }

    pub(super) fn announced(&self, ids: Vec<i64>) {
        if !ids.is_empty() {
            self.put(Request::Announced(ids));
        }
    }

    async fn ask<A>(&self, request: impl FnOnce(ReplyTo<A>) -> Request) -> Result<A, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.put(request(answer));
        answered.await.unwrap_or(Err(StoreError::WriterGone))
    }

    fn put(&self, request: Request) {
        self.waiting().queue.push_back(request);
        self.more.notify_one();
    }

    /// Writes groups until `end`, and then the remaining requests. [`super::WRITERS`] of these run at the
    /// same time; on a fast disk, some of them wait.
    pub(super) async fn write(&self, end: CancellationToken) {
        loop {
            if let Some(group) = self.take() {
                // A panic in one group must not stop the writer for the others; the group's
                // callers get [`StoreError::WriterGone`].
                if AssertUnwindSafe(self.run(group))
                    .catch_unwind()
                    .await
                    .is_err()
                {
                    tracing::error!("a group of writes panicked; its callers get an error");
                }
                self.waiting().busy -= 1;
                continue;
            }
            if end.is_cancelled() {
                return;
            }
            tokio::select! {
                () = self.more.notified() => {}
                () = end.cancelled() => {}
            }
        }
    }

    /// Takes the waiting requests, within the limits of a group, unless enough groups are being
    /// written.
    fn take(&self) -> Option<Group> {
        let mut waiting = self.waiting();
        if waiting.queue.is_empty() || waiting.busy >= waiting.times.writers() {
            return None;
        }
        let mut group = Group::default();
        while let Some(request) = waiting.queue.pop_front() {
            if !group.has_room_for(&request) {
                waiting.queue.push_front(request);
                break;
            }
            group.push(request);
        }
        for again in group.in_order() {
            waiting.queue.push_front(again);
        }
        waiting.busy += 1;
        Some(group)
    }

    async fn run(&self, group: Group) {
        match send::send(&self.pool, &group).await {
            Ok(sent) => {
                // A group that claims nothing and commits nothing is not flushed.
                if sent.has_written() {
                    self.waiting().times.record(sent.flush);
                }
                group.answer(sent);
            }
            Err(error) if group.rows() > 1 && error.is_rolled_back() => {
                tracing::warn!(
                    error = crate::fault::chain(&error),
                    rows = group.rows(),
                    "Postgres rolled back a group of writes; its rows are sent again one by one"
                );
                for one in group.singles() {
                    match send::send(&self.pool, &one).await {
                        Ok(sent) => one.answer(sent),
                        Err(error) => one.refuse(error),
                    }
                }
            }
            // After a statement that it cannot encode, the driver still sends the following ones:
            // these may be stored.
            Err(error) if group.rows() > 1 && !error.is_infrastructure() => {
                group.refuse(StoreError::AfterCommit(Box::new(error)))
            }
            Err(error) => group.refuse(error),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
