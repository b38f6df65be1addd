//! The governor: rate limits, circuit breakers, concurrency limits and holds for calls to other
//! services.
//!
//! Every call to another service asks the governor first. In this process, a destination (tenant ×
//! provider × host, or a registered destination of messages) has a token bucket, a circuit breaker
//! and a concurrency limit in each lane, and all destinations of a provider share a bulkhead. A
//! replica or an operator can hold a destination, alone or together with all destinations under
//! the same shared limit of the provider; [`Holds`] makes holds known to all replicas. A job for a
//! held destination waits for the hold, outside its permit and without using an attempt; jobs for
//! other destinations continue. If only a permit is missing, the hold applies to the destination's
//! permits: a call that finds a free permit ignores it.
//!
//! **Invariant:** a call that may go out asks neither Postgres nor RabbitMQ; the governor reads
//! holds from a copy in memory.
//! **Invariant:** a job waits only for a hold that is stored, so the end of the hold can release
//! it.

mod circuit;
mod destination;
mod destination_states;
mod fault;
mod hold_cache;
mod lanes;
mod provider_bulkhead;
mod rates;
mod scope;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod unsaid;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

#[cfg(test)]
pub(crate) use tests::alone;

pub use destination::CallResult;
pub use fault::GovernorFault;
pub use lanes::{CallLane, Lanes};
pub use rates::{BadRate, Rate, Rates, default_rates};
pub use scope::{Scope, of_provider};

use self::destination::{Asking, HoldRequest, NotNow};
use self::destination_states::{AdmittedCall, DestinationState, DestinationStates};
use self::hold_cache::{Held, HoldCache};
use self::scope::Target;
use self::unsaid::Unsaid;
use crate::fault::{Class, Fault, StageFault};
use crate::telemetry::names;

/// The store of holds, shared by all replicas.
pub trait Holds: Send + Sync {
    /// Places a hold, unless a longer one exists. Returns the remaining time of the hold in force,
    /// by the store's clock.
    fn place<'a>(&'a self, hold: NewHold<'a>) -> BoxFuture<'a, Result<Duration, StageFault>>;

    /// Returns every hold in force.
    fn live(&self) -> BoxFuture<'_, Result<Vec<LiveHold>, StageFault>>;
}

/// A hold to be placed.
#[derive(Debug, Clone, Copy)]
pub struct NewHold<'a> {
    /// See [`Scope::as_str`].
    pub scope: &'a str,
    /// Whether an open circuit breaker is the cause.
    pub is_circuit: bool,
    /// The cause as a clause: `acme's Azure DevOps answered 429`.
    pub reason: &'a str,
    /// How long the hold lasts.
    pub length: Duration,
}

/// A hold in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveHold {
    /// See [`Scope::as_str`].
    pub scope: String,
    /// As placed.
    pub is_circuit: bool,
    /// As placed.
    pub reason: String,
    /// The remaining time.
    pub left: Duration,
}

/// Decides when calls to other services may go out.
pub struct Governor {
    states: DestinationStates,
    holds: Arc<dyn Holds>,
    hold_cache: Mutex<HoldCache>,
    reading: tokio::sync::Mutex<()>,
    unsaid: Mutex<Unsaid>,
}

/// A hold in force, of a destination or of its permits.
struct InForce<'a> {
    target: &'a Target,
    held: Held,
    /// Whether the hold was read or placed within [`hold_cache::FRESH`].
    is_fresh: bool,
}

/// The right to make one call. If it is dropped without [`Permit::settle`], its call counts as
/// unanswered.
pub struct Permit<'a> {
    governor: &'a Governor,
    scope: &'a Scope,
    place: Arc<DestinationState>,
    call: Option<AdmittedCall>,
}

impl CallResult {
    /// Classifies the answer of a call by the class of its fault.
    pub fn of<T, F: Fault>(answer: &Result<T, F>) -> Self {
        let Err(fault) = answer else {
            return Self::Done;
        };
        match fault.class() {
            Class::RateLimited { retry_after }
            | Class::Transient {
                retry_after: retry_after @ Some(_),
            } => {
                if fault.limits_all() {
                    Self::AllRateLimited { retry_after }
                } else {
                    Self::RateLimited { retry_after }
                }
            }
            Class::Transient { retry_after: None } => Self::Failed,
            Class::Permanent
            | Class::Unrecognized
            | Class::Infrastructure
            | Class::Conflict
            | Class::Wait(_)
            | Class::Unfinished => Self::Refused,
        }
    }
}

impl Governor {
    /// Creates a governor with these rates, for lanes of these sizes.
    #[must_use]
    pub fn new(rates: Rates, lanes: Lanes, holds: Arc<dyn Holds>) -> Self {
        Self {
            states: DestinationStates::new(rates, lanes),
            holds,
            hold_cache: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            unsaid: Mutex::default(),
        }
    }

    /// Calls a destination if the governor admits the call, and records the result.
    ///
    /// # Errors
    /// [`GovernorFault`] if the destination was not called.
    pub async fn call<T, F: Fault>(
        &self,
        scope: &Scope,
        call: impl Future<Output = Result<T, F>>,
    ) -> Result<Result<T, F>, GovernorFault> {
        let permit = self.admit(scope).await?;
        let answer = call.await;
        permit.settle(CallResult::of(&answer)).await;
        Ok(answer)
    }

    /// Returns the permit for one call. Waits briefly if a token or a permit is missing.
    ///
    /// # Errors
    /// [`GovernorFault::Held`] if the destination is held, [`GovernorFault::NotPlaced`] if it
    /// needs a hold that cannot be stored.
    pub async fn admit<'a>(&'a self, scope: &'a Scope) -> Result<Permit<'a>, GovernorFault> {
        let (place, call) = self.pass(scope, DestinationState::let_out).await?;
        Ok(Permit {
            governor: self,
            scope,
            place,
            call: Some(call),
        })
    }

    /// Checks whether a call could go out now. Asked before an intent is stored, so that a job
    /// that must wait stores none.
    ///
    /// # Errors
    /// As [`Governor::admit`].
    pub async fn look(&self, scope: &Scope) -> Result<(), GovernorFault> {
        self.pass(scope, DestinationState::look).await.map(|_| ())
    }

    /// Refreshes the copy of all replicas' holds.
    ///
    /// # Errors
    /// Those of [`Holds::live`]. The copy then keeps the known holds until they end.
    pub async fn refresh(&self) -> Result<(), StageFault> {
        let begun = Instant::now();
        let live = self.holds.live().await;
        let gone = locked(&self.hold_cache).take_over(live, begun)?;
        self.states.released(&gone, begun);
        Ok(())
    }

    /// Waits until `asked` succeeds on the destination's state, or fails where the destination is
    /// held or must be.
    async fn pass<V>(
        &self,
        scope: &Scope,
        asked: impl Fn(&DestinationState, Asking) -> Result<V, NotNow>,
    ) -> Result<(Arc<DestinationState>, V), GovernorFault> {
        let (since, lane) = (Instant::now(), scope.lane());
        let place = self.states.of(scope, since);
        loop {
            let changed = place.change_seen();
            if let Some(found) = self.held(scope.targets()).await {
                return Err(found.refuse(&place));
            }
            let now = Instant::now();
            let active_count = self.states.active_count(&place, lane, now);
            let refused = match asked(
                &place,
                Asking {
                    lane,
                    active_count,
                    since,
                    now,
                },
            ) {
                Ok(done) => return Ok((Arc::clone(&place), done)),
                Err(refused) => refused,
            };
            // Only a call without a permit looks at the hold of the permits: it waits with the
            // calls that found none before it.
            if refused.is_for_permits()
                && let Some(found) = self.held(std::iter::once(scope.permits())).await
            {
                return Err(found.refuse(&place));
            }
            match refused {
                NotNow::Hold(request) => return Err(self.hold(scope, &place, request).await),
                NotNow::Wait { until, .. } => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// Returns a hold in force of any of these targets. Refreshes an outdated copy before it
    /// reports a hold.
    async fn held<'a>(
        &self,
        targets: impl Iterator<Item = &'a Target> + Clone,
    ) -> Option<InForce<'a>> {
        let found = self.known(targets.clone())?;
        if found.is_fresh {
            return Some(found);
        }
        let reading = self.reading.lock().await;
        if self
            .known(targets.clone())
            .is_some_and(|found| !found.is_fresh)
            && let Err(fault) = self.refresh().await
        {
            tracing::debug!(
                error = fault.message(),
                "the holds cannot be read; the governor uses the known ones"
            );
        }
        drop(reading);
        self.known(targets)
    }

    /// Returns the hold that lasts longest, as the copy has it.
    fn known<'a>(&self, targets: impl Iterator<Item = &'a Target>) -> Option<InForce<'a>> {
        let (hold_cache, now) = (locked(&self.hold_cache), Instant::now());
        let in_force = |target: &'a Target| {
            let (held, is_fresh) = hold_cache.known(&target.text, now);
            held.map(|held| InForce {
                target,
                held,
                is_fresh,
            })
        };
        targets
            .filter_map(in_force)
            .max_by_key(|found| found.held.until)
    }

    /// Holds a destination, unless another call has held it meanwhile.
    async fn hold(
        &self,
        scope: &Scope,
        place: &DestinationState,
        request: HoldRequest,
    ) -> GovernorFault {
        let _one_at_a_time = place.placing.lock().await;
        let target = if request.why.is_for_permits() {
            scope.permits()
        } else {
            scope.own()
        };
        if let Some(found) = self.known(scope.targets().chain([target])) {
            return found.refuse(place);
        }
        match self.place_hold(scope, place, target, request).await {
            Ok(held) => GovernorFault::held(target, held, Instant::now()),
            Err(fault) => GovernorFault::not_placed(target, &fault),
        }
    }

    async fn place_hold(
        &self,
        scope: &Scope,
        place: &DestinationState,
        target: &Target,
        request: HoldRequest,
    ) -> Result<Held, StageFault> {
        let HoldRequest { why, length } = request;
        let reason = format!("{} {}", target.called, why.text());
        let is_circuit = why.is_circuit();
        let asked = Instant::now();
        let left = self
            .holds
            .place(NewHold {
                scope: &target.text,
                is_circuit,
                reason: &reason,
                length,
            })
            .await?;
        metrics::counter!(names::HOLDS_PLACED, "provider" => scope.provider()).increment(1);
        tracing::warn!(
            hold.scope = target.text,
            hold.seconds = left.as_secs_f64(),
            reason,
            "the governor placed a hold; jobs for this destination wait"
        );
        let held = Held {
            until: asked + left,
            noted: Instant::now(),
            is_circuit,
            reason,
        };
        locked(&self.hold_cache).note(&target.text, held.clone());
        place.changed.notify_waiters();
        Ok(held)
    }

    /// Returns the hold that the result of a call requires: its target, and its length.
    fn limited<'a>(
        &self,
        scope: &'a Scope,
        outcome: CallResult,
        began: Instant,
        request: HoldRequest,
    ) -> (&'a Target, HoldRequest) {
        let (target, retry_after) = match outcome {
            CallResult::RateLimited { retry_after } => (scope.own(), retry_after),
            CallResult::AllRateLimited { retry_after } => (scope.widest(), retry_after),
            CallResult::Done | CallResult::Failed | CallResult::Refused => {
                return (scope.own(), request);
            }
        };
        match retry_after {
            Some(_) => (target, request),
            None => (
                target,
                HoldRequest {
                    length: locked(&self.unsaid).length(&target.text, began, Instant::now()),
                    ..request
                },
            ),
        }
    }
}

impl InForce<'_> {
    /// Returns the fault of a call that this hold prevents. An open circuit elsewhere opens the
    /// one here.
    fn refuse(self, place: &DestinationState) -> GovernorFault {
        if self.held.is_circuit {
            place.change(|destination| destination.seen_open(self.held.until));
        }
        GovernorFault::held(self.target, self.held, Instant::now())
    }
}

impl Permit<'_> {
    /// Records the result of the call, and holds the destination if the result requires it.
    pub async fn settle(mut self, outcome: CallResult) {
        let Some(call) = self.call.take() else { return };
        let (began, now) = (call.began(), Instant::now());
        let request = self.place.count_out(call, now, |destination, ticket| {
            destination.settle(ticket, outcome, now)
        });
        if outcome == CallResult::Done {
            let mut unsaid = locked(&self.governor.unsaid);
            self.scope
                .targets()
                .for_each(|target| unsaid.succeeded(&target.text, began));
        }
        if let Some(request) = request {
            let (target, request) = self.governor.limited(self.scope, outcome, began, request);
            if let Err(fault) = self
                .governor
                .place_hold(self.scope, &self.place, target, request)
                .await
            {
                tracing::warn!(
                    hold.scope = target.text,
                    error = fault.message(),
                    "a hold cannot be stored; the destination is not held"
                );
            }
        }
        self.place.changed.notify_waiters();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let now = Instant::now();
            self.place.count_out(call, now, |destination, ticket| {
                destination.drop_call(ticket, now)
            });
            self.place.changed.notify_waiters();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
