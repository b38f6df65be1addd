//! One sweep over everything that is kept for some time only, in the engine's tables and in the product's, round by round. One replica
//! at a time does it.
//!
//! **Invariant:** what is deleted because of its age is judged by the caller's clock, and nothing is deleted while that clock and
//! Postgres' differ by more than 10 minutes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, Plan, Trouble};
use crate::job::JobId;
use crate::store::{Keep, Store, StoreError, Turn};
use crate::tracker::{Tracker, TrackerFault};

/// Something of a sweep could not be deleted; the rest of the sweep goes on.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// Of the engine's tables.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Of the product's tables.
    #[error(transparent)]
    Tracker(#[from] TrackerFault),
}

/// Where a sweep stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Jobs(Option<JobId>),
    Cancels,
    OpenLetters,
    Letters,
    Holds(i64),
    Replicas,
    Audit,
    Events,
    History,
    Activities,
    Secrets,
}

impl Step {
    const FIRST: Self = Self::Jobs(None);

    const fn following(self) -> Option<Self> {
        Some(match self {
            Self::Jobs(_) => Self::Cancels,
            Self::Cancels => Self::OpenLetters,
            Self::OpenLetters => Self::Letters,
            Self::Letters => Self::Holds(0),
            Self::Holds(_) => Self::Replicas,
            Self::Replicas => Self::Audit,
            Self::Audit => Self::Events,
            Self::Events => Self::History,
            Self::History => Self::Activities,
            Self::Activities => Self::Secrets,
            Self::Secrets => return None,
        })
    }
}

/// Deletes what is older than [`Keep`] says.
#[derive(Debug)]
pub struct Retention {
    keep: Keep,
    at: Mutex<Step>,
}

impl Retention {
    /// Its first sweep begins with the first round.
    #[must_use]
    pub const fn new(keep: Keep) -> Self {
        Self { keep, at: Mutex::new(Step::FIRST) }
    }

    /// The next bounded part of a sweep. `now` is this machine's clock, read for this call: a sweep may take long. `true`: more is left; call again at once. `false`: the sweep
    /// is over, or another replica is at one; the next call begins another.
    ///
    /// # Errors
    /// [`StoreError::Clocks`] where Postgres' clock is another by more than 10 minutes: nothing is deleted then. [`RetentionError`];
    /// the next call goes on with what comes behind that.
    pub async fn round(&self, store: &Store, tracker: &Tracker, now: OffsetDateTime) -> Result<bool, RetentionError> {
        let step = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let done = store.in_turn(Turn::Retention, now, self.take(step, store, tracker, now)).await;
        let next = match &done {
            Ok(Some(Some(same))) => Some(*same),
            Ok(Some(None)) | Err(_) => step.following(),
            Ok(None) => None,
        };
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = next.unwrap_or(Step::FIRST);
        done.map(|_| next.is_some())
    }

    /// Takes a step. Where it is to be taken again because more is left of it, the step.
    async fn take(
        &self,
        step: Step,
        store: &Store,
        tracker: &Tracker,
        now: OffsetDateTime,
    ) -> Result<Option<Step>, RetentionError> {
        let keep = &self.keep;
        let more = match step {
            Step::Jobs(after) => return Ok(store.forget_jobs(keep, now, after).await?.map(|next| Step::Jobs(Some(next)))),
            Step::Holds(after) => return Ok(store.forget_holds(keep, now, after).await?.map(Step::Holds)),
            Step::Cancels => store.forget_cancels(now).await?,
            Step::OpenLetters => store.discard_old_letters(keep, now).await?,
            Step::Letters => store.forget_letters(keep, now).await?,
            Step::Replicas => store.forget_replicas(keep, now).await?,
            Step::Audit => store.forget_audit(keep, now).await?,
            Step::Events => tracker.forget_events(now - keep.jobs).await?,
            Step::History => tracker.forget_history(now - keep.history).await?,
            Step::Activities => tracker.forget_activities(now - keep.history).await?,
            Step::Secrets => {
                tracker.forget_secrets(now).await?;
                false
            }
        };
        Ok(more.then_some(step))
    }
}

/// The duty of it.
pub(super) struct Sweep {
    pub(super) retention: Retention,
    pub(super) store: Store,
    pub(super) tracker: Tracker,
}

impl Duty for Sweep {
    const PLAN: Plan = Plan {
        name: "retention",
        every: Duration::from_secs(600),
        at_most: Duration::from_secs(300),
        late_after: Duration::from_secs(7200),
    };

    async fn round(&mut self, now: OffsetDateTime) -> Result<bool, Trouble> {
        Ok(self.retention.round(&self.store, &self.tracker, now).await?)
    }
}
