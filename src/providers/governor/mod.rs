//! The governor: how fast each destination is called, and when it is left alone.
//!
//! Every call to the outside asks first. A destination (tenant × provider × host, or a registered destination of messages) has
//! a token bucket, a circuit and a number of seats in this process, and all destinations of a provider have some together; and
//! it may be held, by this replica, by another one or by a person, which all replicas know from [`Holds`]. A job that meets a
//! held destination waits for the hold, out of its seat and without using an attempt; every other destination goes on.
//!
//! **Invariant:** a call that may go out asks neither Postgres nor RabbitMQ: holds are read from a copy in memory.
//! **Invariant:** nobody is told to wait for a hold that is not stored, so that its end can let everybody go on.

mod circuit;
mod copied;
mod destination;
mod family;
mod fault;
mod places;
mod rates;
mod scope;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

#[cfg(test)]
pub(crate) use tests::alone;

pub use destination::Outcome;
pub use fault::GovernorFault;
pub use rates::{BadRate, DEFAULT_RATES, Rates};
pub use scope::Scope;

use self::copied::{Copied, Held};
use self::destination::{NotNow, Order};
use self::family::Crowd;
use self::places::{Call, Place, Places};
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
    places: Places,
    holds: Arc<dyn Holds>,
    copied: Mutex<Copied>,
    reading: tokio::sync::Mutex<()>,
}

/// How many jobs run at a time where calls come from.
#[derive(Debug, Clone, Copy)]
pub struct Lanes {
    /// In the smallest lane that calls providers' hosts.
    pub hosts: usize,
    /// In the lane that delivers messages to registered destinations.
    pub destinations: usize,
}

/// The right to one call. Dropped without [`Permit::settle`], its call has had no answer.
pub struct Permit<'a> {
    governor: &'a Governor,
    scope: &'a Scope,
    place: Arc<Place>,
    call: Option<Call>,
}

impl Outcome {
    /// Of a call's answer, by the class of what went wrong.
    pub fn of<T, F: Fault>(answer: &Result<T, F>) -> Self {
        let Err(fault) = answer else { return Self::Done };
        match fault.class() {
            Class::Transient { retry_after } if retry_after.is_some() || fault.code().ends_with(".rate_limited") => {
                Self::RateLimited { retry_after }
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
        Self { places: Places::new(rates, lanes), holds, copied: Mutex::default(), reading: tokio::sync::Mutex::default() }
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
        permit.settle(Outcome::of(&answer)).await;
        Ok(answer)
    }

    /// The right to one call, after a short wait where that helps.
    ///
    /// # Errors
    /// [`GovernorFault::Held`] where the destination is held, [`GovernorFault::NotPlaced`] where it should be.
    pub async fn admit<'a>(&'a self, scope: &'a Scope) -> Result<Permit<'a>, GovernorFault> {
        let (place, call) = self.pass(scope, Place::let_out).await?;
        Ok(Permit { governor: self, scope, place, call: Some(call) })
    }

    /// Whether a call could go out now: asked before an intent is stored, so that a job that must wait leaves none behind.
    ///
    /// # Errors
    /// As [`Governor::admit`].
    pub async fn look(&self, scope: &Scope) -> Result<(), GovernorFault> {
        self.pass(scope, Place::look).await.map(|_| ())
    }

    /// Reads the holds of all replicas again.
    ///
    /// # Errors
    /// Those of [`Holds::live`]; what was known stays, and ends by itself.
    pub async fn refresh(&self) -> Result<(), StageFault> {
        let begun = Instant::now();
        let live = self.holds.live().await;
        let gone = locked(&self.copied).take_over(live, begun)?;
        self.places.released(&gone, begun);
        Ok(())
    }

    /// Waits until the destination does not say no to what is `asked` of it.
    async fn pass<V>(
        &self,
        scope: &Scope,
        asked: impl Fn(&Place, Instant, Instant, Crowd) -> Result<V, NotNow>,
    ) -> Result<(Arc<Place>, V), GovernorFault> {
        let since = Instant::now();
        let place = self.places.of(scope, since);
        loop {
            let changed = place.change_seen();
            if let Some(held) = self.held(scope).await {
                if held.is_circuit {
                    place.change(|destination| destination.seen_open(held.until));
                }
                return Err(GovernorFault::held(scope, &held));
            }
            let now = Instant::now();
            match asked(&place, since, now, self.places.crowd(&place, now)) {
                Ok(done) => return Ok((Arc::clone(&place), done)),
                Err(NotNow::Hold(order)) => return Err(self.hold(scope, &place, order).await),
                Err(NotNow::Wait(until)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    /// The hold in force, by a copy that is fresh where it says so.
    async fn held(&self, scope: &Scope) -> Option<Held> {
        let (held, is_fresh) = self.known(scope);
        if held.is_none() || is_fresh {
            return held;
        }
        let reading = self.reading.lock().await;
        if !self.known(scope).1
            && let Err(fault) = self.refresh().await
        {
            tracing::debug!(error = fault.message(), "holds cannot be read; what was known is gone by");
        }
        drop(reading);
        self.known(scope).0
    }

    /// What the copy says, and whether it is fresh.
    fn known(&self, scope: &Scope) -> (Option<Held>, bool) {
        locked(&self.copied).known(scope, Instant::now())
    }

    /// Holds a destination that nobody has held meanwhile.
    async fn hold(&self, scope: &Scope, place: &Place, order: Order) -> GovernorFault {
        let _one_at_a_time = place.placing.lock().await;
        if let (Some(held), _) = self.known(scope) {
            return GovernorFault::held(scope, &held);
        }
        match self.place_hold(scope, place, order).await {
            Ok(held) => GovernorFault::held(scope, &held),
            Err(fault) => GovernorFault::not_placed(scope, &fault),
        }
    }

    async fn place_hold(&self, scope: &Scope, place: &Place, order: Order) -> Result<Held, StageFault> {
        let reason = format!("{} {}", scope.called(), order.why.text());
        let is_circuit = order.why.is_circuit();
        let asked = Instant::now();
        let new = NewHold { scope: scope.as_str(), is_circuit, reason: &reason, length: order.length };
        let left = self.holds.place(new).await?;
        let held = Held { until: asked + left, noted: Instant::now(), is_circuit, reason: reason.clone() };
        locked(&self.copied).note(scope, held.clone());
        metrics::counter!(names::HOLDS_PLACED, "provider" => scope.provider()).increment(1);
        tracing::warn!(hold.scope = %scope, hold.seconds = left.as_secs_f64(), reason, "a destination is held");
        place.changed.notify_waiters();
        Ok(held)
    }
}

impl Permit<'_> {
    /// Counts the call out, and holds the destination where its answer says so.
    pub async fn settle(mut self, outcome: Outcome) {
        let Some(call) = self.call.take() else { return };
        let now = Instant::now();
        let order = self.place.count_out(call, now, |destination, ticket| destination.settle(ticket, outcome, now));
        if let Some(order) = order
            && let Err(fault) = self.governor.place_hold(self.scope, &self.place, order).await
        {
            tracing::warn!(hold.scope = %self.scope, error = fault.message(), "a hold cannot be placed");
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
