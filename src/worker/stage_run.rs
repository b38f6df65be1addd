//! One attempt of one stage: looks, stores the intent, runs. Panics are caught, and time is
//! bounded.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;

use super::Worker;
use crate::crash_point::reach;
use crate::engine::{
    Context, Effect, Ended, ErasedPrepared, ErasedStage, Kept, Product, StageInfo,
};
use crate::fault::{Class, DEADLINE_HINT, Fault, StageFault, codes};
use crate::store::{Claim, IntentOutcome, Tables};

/// The stage due of a claimed job, and what its runs share.
pub(super) struct Due<'a, P: Product> {
    pub(super) info: &'a StageInfo,
    pub(super) stage: &'a dyn ErasedStage<P>,
    /// The stage after it in the list.
    pub(super) next: Option<&'static str>,
    pub(super) payload: &'a OnceLock<Arc<dyn Any + Send + Sync>>,
    pub(super) kept: &'a Kept<'a>,
}

/// The result of an attempt.
pub(super) enum Step<C> {
    /// The attempt ended, with this effect if it had one.
    Ended(Ended<C>, Option<Effect>),
    /// The effect must not start before this time has passed.
    NotYet(Duration),
    /// This replica no longer owns the job.
    Fenced,
}

impl<C> Step<C> {
    /// Ends an attempt because the job's deadline passed before the stage began, or before the
    /// call of its effect.
    pub(super) fn overdue(effect: Option<Effect>) -> Self {
        Self::Ended(Ended::Fault(LineFault::DeadlineExceeded.into()), effect)
    }
}

/// A reason why the worker, and not the stage, ends a run.
#[derive(Debug, thiserror::Error)]
enum LineFault {
    #[error("the job's deadline has passed")]
    DeadlineExceeded,
    #[error(
        "it is not known whether the last call went through, and the destination's policy is `hold`"
    )]
    UnknownOutcome,
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for LineFault {
    fn code(&self) -> &'static str {
        match self {
            Self::DeadlineExceeded => codes::DEADLINE_EXCEEDED,
            Self::UnknownOutcome => codes::UNKNOWN_OUTCOME,
        }
    }

    fn class(&self) -> Class {
        Class::Permanent
    }

    fn hint(&self) -> String {
        match self {
            Self::DeadlineExceeded => DEADLINE_HINT.to_owned(),
            Self::UnknownOutcome => {
                "Check whether the message is at the destination; then retry the job or cancel it."
                    .to_owned()
            }
        }
    }
}

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Looks, stores the intent if there is one, and runs the stage.
    pub(super) async fn attempt(&self, claim: &Claim, due: &Due<'_, P>) -> Step<P::Changes> {
        let Due {
            info,
            stage,
            payload,
            kept,
            ..
        } = *due;
        let services = &*self.context.services;
        let context = || {
            Context::new(
                &claim.job,
                services,
                &claim.outputs,
                info.needs,
                payload,
                kept,
            )
        };
        let look = context();
        let intent = match guarded(info.timeout, stage.prepare(&look)).await {
            Err(ended) => return Step::Ended(ended, None),
            Ok(ErasedPrepared::Done(outcome)) => {
                return Step::Ended(Ended::Done(Box::new(outcome)), None);
            }
            Ok(ErasedPrepared::NoEffect) => None,
            Ok(ErasedPrepared::Effect(intent)) => Some(intent),
        };
        let effect = match intent {
            None => None,
            Some(intent) => {
                self.lease.may_start_effect().await;
                // Time has passed since the look, and storing the intent takes more: no effect
                // starts after the deadline.
                if claim.is_overdue() {
                    return Step::overdue(None);
                }
                let stored = self
                    .context
                    .until_available(|| {
                        self.context
                            .store()
                            .store_intent(&claim.fence, &claim.job, &intent)
                    })
                    .await;
                match stored {
                    // A call that waits for a permit of its destination is not made after the
                    // job's deadline.
                    Ok(IntentOutcome::Go(effect)) => {
                        let deadline = claim
                            .deadline
                            .map_or(effect.deadline, |deadline| deadline.min(effect.deadline));
                        Some(Effect { deadline, ..effect })
                    }
                    Ok(IntentOutcome::NotYet(delay)) => return Step::NotYet(delay),
                    Ok(IntentOutcome::Held) => {
                        return Step::Ended(Ended::Fault(LineFault::UnknownOutcome.into()), None);
                    }
                    Ok(IntentOutcome::Fenced) => return Step::Fenced,
                    Err(error) => return Step::Ended(Ended::Fault(error.into()), None),
                }
            }
        };
        reach(info.name, "after_intent");
        if effect.is_some() && claim.is_overdue() {
            return Step::overdue(effect);
        }
        let cx = context().with_effect(effect.as_ref());
        let ended = guarded(info.timeout, stage.run(&cx))
            .await
            .map_or_else(|ended| ended, |outcome| Ended::Done(Box::new(outcome)));
        Step::Ended(ended, effect)
    }

    /// Settles an effect whose compare-and-set was lost. Otherwise the next look, in this job or
    /// another, could take the other writer's change for ours if the two have the same value.
    pub(super) async fn refused(&self, claim: &Claim, effect: Option<&Effect>) {
        let Some(effect) = effect else { return };
        if let Err(error) = self
            .context
            .until_available(|| {
                self.context
                    .store()
                    .effect_refused(&claim.fence, &effect.key)
            })
            .await
        {
            tracing::error!(
                error = crate::fault::chain(&error),
                "an effect whose compare-and-set was lost could not be settled"
            );
        }
    }
}

/// Awaits a stage's future with its panics caught and its time bounded.
async fn guarded<V, C>(
    limit: Duration,
    run: impl Future<Output = Result<V, StageFault>>,
) -> Result<V, Ended<C>> {
    match tokio::time::timeout(limit, AssertUnwindSafe(run).catch_unwind()).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(fault))) => Err(Ended::Fault(fault)),
        Ok(Err(panic)) => Err(Ended::Panicked(message_of(panic.as_ref()))),
        Err(_) => Err(Ended::TimedOut(limit)),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    crate::fault::storable(
        &text.unwrap_or_else(|| "the stage panicked without a message".to_owned()),
        crate::fault::MESSAGE_BYTES,
    )
}
