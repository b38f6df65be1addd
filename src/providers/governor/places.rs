//! The destinations that were called of late, each with what it shares with the others of its provider.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::destination::{Destination, NotNow, Seats, Standing, Ticket};
use super::family::{Crowd, Family};
use super::{Lanes, Rates, Scope, locked};
use crate::telemetry::names;

/// How often it is counted how many destinations are active.
const RECOUNT: Duration = Duration::from_secs(1);
/// Destinations remembered, at most.
pub(super) const DESTINATIONS: usize = 4096;

/// One destination, shared by the calls that want to go there.
pub(super) struct Place {
    kin: Arc<Kin>,
    state: Mutex<Destination>,
    /// Something has changed for those who wait.
    pub(super) changed: Notify,
    /// One of several calls that find the same thing places the hold.
    pub(super) placing: tokio::sync::Mutex<()>,
}

/// The destinations of one provider.
struct Kin {
    provider: &'static str,
    is_host: bool,
    state: Mutex<Family>,
    /// As [`Place::changed`], where they wait for each other.
    changed: Notify,
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    ticket: Ticket,
    /// In its family.
    number: u64,
}

/// Every destination that is known.
pub(super) struct Places {
    rates: Rates,
    lanes: Lanes,
    /// By scope.
    pub(super) known: Mutex<HashMap<String, Arc<Place>>>,
    /// By provider, and whether they are hosts.
    kin: Mutex<HashMap<(&'static str, bool), Arc<Kin>>>,
    active: Mutex<Active>,
}

/// How many destinations are active, by provider and whether they are hosts.
#[derive(Debug, Default)]
struct Active {
    counted: Option<Instant>,
    of: HashMap<(&'static str, bool), usize>,
}

impl Places {
    pub(super) fn new(rates: Rates, lanes: Lanes) -> Self {
        Self { rates, lanes, known: Mutex::default(), kin: Mutex::default(), active: Mutex::default() }
    }

    /// The place of a scope, which is known from now on.
    pub(super) fn of(&self, scope: &Scope, now: Instant) -> Arc<Place> {
        let mut known = locked(&self.known);
        if let Some(place) = known.get(scope.as_str()) {
            return Arc::clone(place);
        }
        if known.len() >= DESTINATIONS {
            let idle = known.iter().filter(|(_, place)| Arc::strong_count(place) == 1);
            let idle = idle.filter_map(|(scope, place)| Some((locked(&place.state).idle_since()?, scope)));
            if let Some(scope) = idle.min().map(|(_, scope)| scope.clone()) {
                known.remove(&scope);
            }
        }
        let seats = Seats::of_lane(if scope.is_host() { self.lanes.hosts } else { self.lanes.destinations });
        let state = Mutex::new(Destination::new(self.rates.of(scope.provider()), seats, now));
        let kin = self.kin_of(scope, seats, now);
        let place = Arc::new(Place { kin, state, changed: Notify::new(), placing: tokio::sync::Mutex::default() });
        known.insert(scope.as_str().to_owned(), Arc::clone(&place));
        drop(known);
        locked(&self.active).counted = None;
        place
    }

    fn kin_of(&self, scope: &Scope, seats: Seats, now: Instant) -> Arc<Kin> {
        let (provider, is_host) = (scope.provider(), scope.is_host());
        // All hosts are one provider's: their lanes have no other one to leave seats to.
        let new = || Kin { provider, is_host, state: Mutex::new(Family::new(seats, is_host, now)), changed: Notify::new() };
        Arc::clone(locked(&self.kin).entry((provider, is_host)).or_insert_with(|| Arc::new(new())))
    }

    /// The holds of these scopes' open circuits are gone before their time.
    pub(super) fn released(&self, scopes: &[String], now: Instant) {
        let known = locked(&self.known);
        for place in scopes.iter().filter_map(|scope| known.get(scope)) {
            place.change(|destination| destination.released(now));
        }
    }

    /// How many destinations share the lane of this one; counted once a second, and when one comes that was not known.
    pub(super) fn crowd(&self, place: &Place, now: Instant) -> Crowd {
        let mut active = locked(&self.active);
        if active.counted.is_none_or(|counted| now.saturating_duration_since(counted) >= RECOUNT) {
            *active = Active { counted: Some(now), of: HashMap::new() };
            let known = locked(&self.known);
            for place in known.values().filter(|place| locked(&place.state).is_active(now)) {
                *active.of.entry((place.kin.provider, place.kin.is_host)).or_default() += 1;
            }
        }
        let Kin { provider, is_host, .. } = *place.kin;
        let of_lane = active.of.iter().filter(|((_, hosts), _)| *hosts == is_host);
        Crowd { all: of_lane.map(|(_, count)| count).sum(), own: active.of.get(&(provider, is_host)).copied().unwrap_or(0) }
    }
}

impl Place {
    /// Says at `now` whether a call that has waited since `since` could go out.
    pub(super) fn look(&self, since: Instant, now: Instant, crowd: Crowd) -> Result<(), NotNow> {
        self.ask(since, now, crowd, |_, _, _| ())
    }

    /// Lets a call out at `now`.
    pub(super) fn let_out(&self, since: Instant, now: Instant, crowd: Crowd) -> Result<Call, NotNow> {
        self.ask(since, now, crowd, |destination, family, standing| Call {
            ticket: destination.let_out(now),
            number: family.let_out(standing, now),
        })
    }

    /// Does `then` where a call may go out.
    fn ask<V>(
        &self,
        since: Instant,
        now: Instant,
        crowd: Crowd,
        then: impl FnOnce(&mut Destination, &mut Family, Standing) -> V,
    ) -> Result<V, NotNow> {
        self.change(|destination| {
            destination.ask(since, now, crowd.all)?;
            let standing = destination.standing(now);
            let mut family = locked(&self.kin.state);
            family.ask(standing, since, now, crowd)?;
            Ok(then(destination, &mut family, standing))
        })
    }

    /// Counts a call out at `now`, doing `end` to its destination.
    pub(super) fn count_out<V>(&self, call: Call, now: Instant, end: impl FnOnce(&mut Destination, Ticket) -> V) -> V {
        let made = self.change(|destination| end(destination, call.ticket));
        if locked(&self.kin.state).leave(call.number, now) {
            self.kin.changed.notify_waiters();
        }
        made
    }

    /// Ready when something has changed, since this was called, for those who wait.
    pub(super) fn change_seen(&self) -> impl Future<Output = ()> {
        let (here, among_kin) = (self.changed.notified(), self.kin.changed.notified());
        async move {
            tokio::select! {
                () = here => {}
                () = among_kin => {}
            }
        }
    }

    /// Changes the state, and the gauge with it.
    pub(super) fn change<V>(&self, change: impl FnOnce(&mut Destination) -> V) -> V {
        let mut state = locked(&self.state);
        let was_closed = state.is_closed();
        let made = change(&mut state);
        let is_closed = state.is_closed();
        drop(state);
        let gauge = || metrics::gauge!(names::OPEN_CIRCUITS, "provider" => self.kin.provider);
        match (was_closed, is_closed) {
            (true, false) => gauge().increment(1.0),
            (false, true) => gauge().decrement(1.0),
            (true, true) | (false, false) => {}
        }
        made
    }
}
