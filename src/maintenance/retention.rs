//! Deletes what is over, in the engine's tables and in the product's: a pass of bounded rounds,
//! done by one replica at a time.
//!
//! **Invariant:** the caller's clock decides what is old enough to be deleted, and nothing is
//! deleted while that clock and Postgres' clock differ by more than 10 minutes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;

use super::duty::{Duty, DutyError, Plan};
use crate::job::JobId;
use crate::store::{Keep, Store, StoreError, Turn};
use crate::tracker::{Tracker, TrackerFault};

/// An error of one part of a pass; the rest of the pass continues.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// An error in the engine's tables.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An error in the product's tables.
    #[error(transparent)]
    Tracker(#[from] TrackerFault),
}

/// The position of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Jobs(Option<JobId>),
    Cancels,
    OpenLetters,
    Letters,
    Holds(i64),
    Campaigns,
    Answers,
    Tokens,
    Replicas,
    FailureGroups,
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
            Self::Holds(_) => Self::Campaigns,
            Self::Campaigns => Self::Answers,
            Self::Answers => Self::Tokens,
            Self::Tokens => Self::Replicas,
            Self::Replicas => Self::FailureGroups,
            Self::FailureGroups => Self::Audit,
            Self::Audit => Self::Events,
            Self::Events => Self::History,
            Self::History => Self::Activities,
            Self::Activities => Self::Secrets,
            Self::Secrets => return None,
        })
    }
}

/// Deletes what is older than [`Keep`] allows.
#[derive(Debug)]
pub struct Retention {
    keep: Keep,
    at: Mutex<Step>,
}

impl Retention {
    /// Creates a retention whose first pass begins with the first round.
    #[must_use]
    pub const fn new(keep: Keep) -> Self {
        Self {
            keep,
            at: Mutex::new(Step::FIRST),
        }
    }

    /// Does the next bounded part of a pass. `now` is this machine's clock, read for this call,
    /// because a pass may take long. Returns `true` if more is left: call again at once. Returns
    /// `false` if the pass is over, or if another replica is doing one: the next call begins
    /// another pass.
    ///
    /// # Errors
    /// [`StoreError::Clocks`] where Postgres' clock differs from `now` by more than 10 minutes:
    /// nothing is deleted then.
    /// [`RetentionError`]: the next call continues with the part after the one that failed.
    pub async fn round(
        &self,
        store: &Store,
        tracker: &Tracker,
        now: OffsetDateTime,
    ) -> Result<bool, RetentionError> {
        let step = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let done = store
            .in_turn(Turn::Retention, now, self.take(step, store, tracker, now))
            .await;
        let next = match &done {
            Ok(Some(Some(same))) => Some(*same),
            Ok(Some(None)) | Err(_) => step.following(),
            Ok(None) => None,
        };
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = next.unwrap_or(Step::FIRST);
        done.map(|_| next.is_some())
    }

    /// Does one part of a pass. Returns the position to continue at if more of this part is left.
    async fn take(
        &self,
        step: Step,
        store: &Store,
        tracker: &Tracker,
        now: OffsetDateTime,
    ) -> Result<Option<Step>, RetentionError> {
        let keep = &self.keep;
        let more = match step {
            Step::Jobs(after) => {
                return Ok(store
                    .forget_jobs(keep, now, after)
                    .await?
                    .map(|next| Step::Jobs(Some(next))));
            }
            Step::Holds(after) => {
                return Ok(store.forget_holds(keep, now, after).await?.map(Step::Holds));
            }
            Step::Cancels => store.forget_cancels(now).await?,
            Step::OpenLetters => store.discard_old_letters(keep, now).await?,
            Step::Letters => store.forget_letters(keep, now).await?,
            Step::Campaigns => store.forget_campaigns(now).await?,
            Step::Answers => store.forget_answers(now).await?,
            Step::Tokens => store.forget_tokens(now).await?,
            Step::Replicas => store.forget_replicas(keep, now).await?,
            Step::FailureGroups => store.forget_failure_groups(keep, now).await?,
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

/// The duty that runs the retention.
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

    async fn round(&mut self, now: OffsetDateTime) -> Result<bool, DutyError> {
        Ok(self
            .retention
            .round(&self.store, &self.tracker, now)
            .await?)
    }
}
