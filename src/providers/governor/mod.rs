//! The governor: how fast each destination is called, and when it is left alone.
//!
//! Every call to the outside asks first. A destination (tenant × provider × host, or a registered destination of messages) has
//! a token bucket, a circuit and a number of seats of each lane in this process, and all destinations of a provider have some
//! together; and it may be held, by this replica, by another one or by a person, which all replicas know from [`Holds`]: it
//! alone, or with all that the other side limits together. A job that meets a held destination waits for the hold, out of its
//! seat and without using an attempt; every other destination goes on. Where nothing is missing but a seat, the hold is one of the
//! destination's seats, and keeps nobody waiting who finds one.
//!
//! **Invariant:** a call that may go out asks neither Postgres nor RabbitMQ: holds are read from a copy in memory.
//! **Invariant:** nobody is told to wait for a hold that is not stored, so that its end can let everybody go on.

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
pub use rates::{BadRate, DEFAULT_RATES, Rates};
pub use scope::Scope;

use self::destination::{Asking, HoldRequest, NotNow};
use self::destination_states::{AdmittedCall, DestinationState, DestinationStates};
use self::hold_cache::{Copied, Held};
use self::scope::Target;
use self::unsaid::Unsaid;
use crate::fault::{Class, Fault, StageFault};
use crate::telemetry::names;

/// Where holds are kept for all replicas.
pub trait Holds: Send + Sync {
    /// Places a hold, unless a longer one is there. How long it still lasts, by the clock of whoever keeps it.
    fn place<'a>(&'a self, hold: NewHold<'a>) -> BoxFuture<'a, Result<Duration, StageFault>>;

    /// Every hold in force.
    fn live(&self) -> BoxFuture<'_, Result<Vec<LiveHold>, StageFault>>;
}

/// A hold to be placed.
#[derive(Debug, Clone, Copy)]
pub struct NewHold<'a> {
    /// See [`Scope::as_str`].
    pub scope: &'a str,
    /// Whether a circuit is open, or the other side has asked for patience.
    pub is_circuit: bool,
    /// What is so, as a clause: `acme's Azure DevOps answered 429`.
    pub reason: &'a str,
    /// For how long.
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
    /// How long it still lasts.
    pub left: Duration,
}

/// Lets calls out.
pub struct Governor {
    states: DestinationStates,
    holds: Arc<dyn Holds>,
    copied: Mutex<Copied>,
    reading: tokio::sync::Mutex<()>,
    unsaid: Mutex<Unsaid>,
}

/// A hold that keeps a scope from being called, or its seats from being waited for.
struct InForce<'a> {
    target: &'a Target,
    held: Held,
    /// Read or placed a moment ago.
    is_fresh: bool,
}

/// The right to one call. Dropped without [`Permit::settle`], its call has had no answer.
pub struct Permit<'a> {
    governor: &'a Governor,
    scope: &'a Scope,
    place: Arc<DestinationState>,
    call: Option<AdmittedCall>,
}

impl CallResult {
    /// Of a call's answer, by the class of what went wrong.
    pub fn of<T, F: Fault>(answer: &Result<T, F>) -> Self {
        let Err(fault) = answer else { return Self::Done };
        match fault.class() {
            Class::Transient { retry_after } if retry_after.is_some() || fault.code().ends_with(".rate_limited") => {
                if fault.limits_all() { Self::AllRateLimited { retry_after } } else { Self::RateLimited { retry_after } }
            }
            Class::Transient { .. } => Self::Failed,
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
    /// With these rates, for lanes of these sizes.
    #[must_use]
    pub fn new(rates: Rates, lanes: Lanes, holds: Arc<dyn Holds>) -> Self {
        Self {
            states: DestinationStates::new(rates, lanes),
            holds,
            copied: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            unsaid: Mutex::default(),
        }
    }

    /// Calls a destination where it may be called, and counts what came of it.
    ///
    /// # Errors
    /// [`GovernorFault`] where it was not called.
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

    /// The right to one call, after a short wait where that helps.
    ///
    /// # Errors
    /// [`GovernorFault::Held`] where the destination is held, [`GovernorFault::NotPlaced`] where it should be.
    pub async fn admit<'a>(&'a self, scope: &'a Scope) -> Result<Permit<'a>, GovernorFault> {
        let (place, call) = self.pass(scope, DestinationState::let_out).await?;
        Ok(Permit { governor: self, scope, place, call: Some(call) })
    }

    /// Whether a call could go out now: asked before an intent is stored, so that a job that must wait leaves none behind.
    ///
    /// # Errors
    /// As [`Governor::admit`].
    pub async fn look(&self, scope: &Scope) -> Result<(), GovernorFault> {
        self.pass(scope, DestinationState::look).await.map(|_| ())
    }

    /// Reads the holds of all replicas again.
    ///
    /// # Errors
    /// Those of [`Holds::live`]; what was known stays, and ends by itself.
    pub async fn refresh(&self) -> Result<(), StageFault> {
        let begun = Instant::now();
        let live = self.holds.live().await;
        let gone = locked(&self.copied).take_over(live, begun)?;
        self.states.released(&gone, begun);
        Ok(())
    }

    /// Waits until the destination does not say no to what is `asked` of it.
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
            let refused = match asked(&place, Asking { lane, active_count, since, now }) {
                Ok(done) => return Ok((Arc::clone(&place), done)),
                Err(refused) => refused,
            };
            // A call that finds no seat waits with those that found none before it; one that finds a seat does not look at this.
            if refused.is_for_seats()
                && let Some(found) = self.held(std::iter::once(scope.seats())).await
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

    /// The hold in force of any of these, by a copy that is fresh where it says so.
    async fn held<'a>(&self, targets: impl Iterator<Item = &'a Target> + Clone) -> Option<InForce<'a>> {
        let found = self.known(targets.clone())?;
        if found.is_fresh {
            return Some(found);
        }
        let reading = self.reading.lock().await;
        if self.known(targets.clone()).is_some_and(|found| !found.is_fresh)
            && let Err(fault) = self.refresh().await
        {
            tracing::debug!(error = fault.message(), "holds cannot be read; what was known is gone by");
        }
        drop(reading);
        self.known(targets)
    }

    /// What the copy says: of several holds the one that lasts longest.
    fn known<'a>(&self, targets: impl Iterator<Item = &'a Target>) -> Option<InForce<'a>> {
        let (copied, now) = (locked(&self.copied), Instant::now());
        let in_force = |target: &'a Target| {
            let (held, is_fresh) = copied.known(&target.text, now);
            held.map(|held| InForce { target, held, is_fresh })
        };
        targets.filter_map(in_force).max_by_key(|found| found.held.until)
    }

    /// Holds a destination that nobody has held meanwhile.
    async fn hold(&self, scope: &Scope, place: &DestinationState, request: HoldRequest) -> GovernorFault {
        let _one_at_a_time = place.placing.lock().await;
        let target = if request.why.is_for_seats() { scope.seats() } else { scope.own() };
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
        let left = self.holds.place(NewHold { scope: &target.text, is_circuit, reason: &reason, length }).await?;
        metrics::counter!(names::HOLDS_PLACED, "provider" => scope.provider()).increment(1);
        tracing::warn!(hold.scope = target.text, hold.seconds = left.as_secs_f64(), reason, "a destination is held");
        let held = Held { until: asked + left, noted: Instant::now(), is_circuit, reason };
        locked(&self.copied).note(&target.text, held.clone());
        place.changed.notify_waiters();
        Ok(held)
    }

    /// The hold that an ended call asks for, of as much as it says.
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
            CallResult::Done | CallResult::Failed | CallResult::Refused => return (scope.own(), request),
        };
        match retry_after {
            Some(_) => (target, request),
            None => (target, HoldRequest { length: locked(&self.unsaid).length(&target.text, began, Instant::now()), ..request }),
        }
    }
}

impl InForce<'_> {
    /// That the place is not called because of it.
    fn refuse(self, place: &DestinationState) -> GovernorFault {
        if self.held.is_circuit {
            place.change(|destination| destination.seen_open(self.held.until));
        }
        GovernorFault::held(self.target, self.held, Instant::now())
    }
}

impl Permit<'_> {
    /// Counts the call out, and holds the destination where its answer says so.
    pub async fn settle(mut self, outcome: CallResult) {
        let Some(call) = self.call.take() else { return };
        let (began, now) = (call.began(), Instant::now());
        let request = self.place.count_out(call, now, |destination, ticket| destination.settle(ticket, outcome, now));
        if outcome == CallResult::Done {
            let mut unsaid = locked(&self.governor.unsaid);
            self.scope.targets().for_each(|target| unsaid.succeeded(&target.text, began));
        }
        if let Some(request) = request {
            let (target, request) = self.governor.limited(self.scope, outcome, began, request);
            if let Err(fault) = self.governor.place_hold(self.scope, &self.place, target, request).await {
                tracing::warn!(hold.scope = target.text, error = fault.message(), "a hold cannot be placed");
            }
        }
        self.place.changed.notify_waiters();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            let now = Instant::now();
            self.place.count_out(call, now, |destination, ticket| destination.drop_call(ticket, now));
            self.place.changed.notify_waiters();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
