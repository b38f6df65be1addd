//! The destinations that were called recently, each with the bulkhead that it shares with its
//! provider's other destinations.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::destination::{ActiveCount, Asking, Destination, LaneRules, NotNow, Ticket};
use super::lanes::{CallLane, Lanes, PerLane};
use super::provider_bulkhead::{Member, ProviderBulkhead};
use super::{Rates, Scope, locked};
use crate::telemetry::names;

/// How often the active destinations are counted.
const RECOUNT: Duration = Duration::from_secs(1);
/// The most destinations that are remembered.
pub(super) const DESTINATIONS: usize = 4096;
/// Hosts are assumed to answer within this time until they show otherwise: a batch takes seconds
/// when the vendor is slow.
const PACE_OF_HOSTS: Duration = Duration::from_secs(3);

/// The state of one destination, shared by all calls to it.
pub(super) struct DestinationState {
    group: Arc<ProviderGroup>,
    /// The organization, for a host.
    tenant: Option<Arc<str>>,
    state: Mutex<Destination>,
    /// Notified when the state changes, for the calls that wait.
    pub(super) changed: Notify,
    /// Serializes calls that find the same reason, so that one of them places the hold.
    pub(super) placing: tokio::sync::Mutex<()>,
}

/// The destinations of one provider.
struct ProviderGroup {
    provider: &'static str,
    bulkheads: PerLane<Mutex<ProviderBulkhead>>,
    /// As [`DestinationState::changed`], for calls that wait for a permit of the bulkhead.
    changed: Notify,
}

/// An admitted call, in flight.
#[derive(Debug)]
pub(super) struct AdmittedCall {
    lane: CallLane,
    ticket: Ticket,
    /// The number of the call in its bulkhead.
    number: u64,
}

impl AdmittedCall {
    /// Returns when the call was admitted.
    pub(super) const fn began(&self) -> Instant {
        self.ticket.began
    }
}

/// The states of all known destinations.
pub(super) struct DestinationStates {
    rates: Rates,
    lanes: Lanes,
    /// By scope.
    pub(super) known: Mutex<HashMap<String, Arc<DestinationState>>>,
    /// By provider, hosts and destinations of messages apart.
    groups: Mutex<HashMap<(&'static str, bool), Arc<ProviderGroup>>>,
    active: Mutex<Active>,
}

/// The active destinations and organizations of each lane.
#[derive(Debug, Default)]
struct Active {
    counted: Option<Instant>,
    /// Destinations of messages, by provider.
    destinations: PerLane<HashMap<&'static str, usize>>,
    /// Organizations whose hosts are called.
    tenants: PerLane<HashSet<Arc<str>>>,
}

impl DestinationStates {
    pub(super) fn new(rates: Rates, lanes: Lanes) -> Self {
        Self {
            rates,
            lanes,
            known: Mutex::default(),
            groups: Mutex::default(),
            active: Mutex::default(),
        }
    }

    /// Returns the state of a scope. The scope is known from then on, and active in its lane.
    pub(super) fn of(&self, scope: &Scope, now: Instant) -> Arc<DestinationState> {
        let place = self.known_or_new(scope, now);
        if place.change(|destination| destination.touch(scope.lane(), now)) {
            locked(&self.active).counted = None;
        }
        place
    }

    fn known_or_new(&self, scope: &Scope, now: Instant) -> Arc<DestinationState> {
        let mut known = locked(&self.known);
        if let Some(place) = known.get(scope.as_str()) {
            return Arc::clone(place);
        }
        if known.len() >= DESTINATIONS {
            let idle = known
                .iter()
                .filter(|(_, place)| Arc::strong_count(place) == 1);
            let idle =
                idle.filter_map(|(scope, place)| Some((locked(&place.state).idle_since()?, scope)));
            if let Some(scope) = idle.min().map(|(_, scope)| scope.clone()) {
                known.remove(&scope);
            }
        }
        let place = Arc::new(self.new_place(scope, now));
        known.insert(scope.as_str().to_owned(), Arc::clone(&place));
        place
    }

    fn new_place(&self, scope: &Scope, now: Instant) -> DestinationState {
        let tenant = scope.tenant().map(Arc::from);
        let (rules_of, pace): (fn(usize) -> LaneRules, _) = if tenant.is_some() {
            (LaneRules::of_host, PACE_OF_HOSTS)
        } else {
            (LaneRules::of_destination, Duration::ZERO)
        };
        let rules = PerLane::new(|lane| rules_of(self.lanes.size(lane)));
        let provider = scope.provider();
        let bulkheads = || PerLane::new(|lane| Mutex::new(ProviderBulkhead::new(rules[lane], now)));
        let new_group = || {
            Arc::new(ProviderGroup {
                provider,
                bulkheads: bulkheads(),
                changed: Notify::new(),
            })
        };
        let group = Arc::clone(
            locked(&self.groups)
                .entry((provider, tenant.is_some()))
                .or_insert_with(new_group),
        );
        let state = Mutex::new(Destination::new(self.rates.of(provider), &rules, pace, now));
        DestinationState {
            group,
            tenant,
            state,
            changed: Notify::new(),
            placing: tokio::sync::Mutex::default(),
        }
    }

    /// Records that the holds of these scopes' open circuits ended before their time.
    pub(super) fn released(&self, scopes: &[String], now: Instant) {
        let known = locked(&self.known);
        for place in scopes.iter().filter_map(|scope| known.get(scope)) {
            place.change(|destination| destination.released(now));
        }
    }

    /// Returns how many share a lane with this destination. Counted once a second, and when a
    /// destination becomes active.
    pub(super) fn active_count(
        &self,
        place: &DestinationState,
        lane: CallLane,
        now: Instant,
    ) -> ActiveCount {
        let mut active = locked(&self.active);
        if active
            .counted
            .is_none_or(|counted| now.saturating_duration_since(counted) >= RECOUNT)
        {
            *active = self.count(now);
        }
        if place.tenant.is_some() {
            return ActiveCount {
                all: active.tenants[lane].len(),
                own: 1,
            };
        }
        let destinations = &active.destinations[lane];
        ActiveCount {
            all: destinations.values().sum(),
            own: destinations.get(place.group.provider).copied().unwrap_or(0),
        }
    }

    fn count(&self, now: Instant) -> Active {
        let mut active = Active {
            counted: Some(now),
            ..Active::default()
        };
        for place in locked(&self.known).values() {
            let state = locked(&place.state);
            for lane in CallLane::ALL
                .into_iter()
                .filter(|lane| state.is_active(*lane, now))
            {
                match &place.tenant {
                    Some(tenant) => drop(active.tenants[lane].insert(Arc::clone(tenant))),
                    None => {
                        *active.destinations[lane]
                            .entry(place.group.provider)
                            .or_default() += 1
                    }
                }
            }
        }
        active
    }
}

impl DestinationState {
    /// Checks whether a call could go out.
    pub(super) fn look(&self, asking: Asking) -> Result<(), NotNow> {
        self.ask(asking, |_, _, _| ())
    }

    /// Admits a call.
    pub(super) fn let_out(&self, asking: Asking) -> Result<AdmittedCall, NotNow> {
        let Asking { lane, now, .. } = asking;
        self.ask(asking, |destination, bulkhead, member| AdmittedCall {
            lane,
            ticket: destination.let_out(lane, now),
            number: bulkhead.let_out(member, now),
        })
    }

    /// Runs `then` if a call may go out.
    fn ask<V>(
        &self,
        asking: Asking,
        then: impl FnOnce(&mut Destination, &mut ProviderBulkhead, Member) -> V,
    ) -> Result<V, NotNow> {
        self.change(|destination| {
            destination.ask(asking)?;
            let (speed, overdue_after) =
                (destination.speed(asking.now), destination.overdue_after());
            let member = Member {
                speed,
                tenant: self.tenant.clone(),
                overdue_after,
            };
            let mut bulkhead = locked(&self.group.bulkheads[asking.lane]);
            bulkhead.ask(&member, asking)?;
            Ok(then(destination, &mut bulkhead, member))
        })
    }

    /// Releases the permits of a call at `now`, and applies `end` to its destination.
    pub(super) fn count_out<V>(
        &self,
        call: AdmittedCall,
        now: Instant,
        end: impl FnOnce(&mut Destination, Ticket) -> V,
    ) -> V {
        let made = self.change(|destination| end(destination, call.ticket));
        if locked(&self.group.bulkheads[call.lane]).leave(call.number, now) {
            self.group.changed.notify_waiters();
        }
        made
    }

    /// Returns a future that is ready when the state has changed after this call.
    pub(super) fn change_seen(&self) -> impl Future<Output = ()> {
        let (here, in_group) = (self.changed.notified(), self.group.changed.notified());
        async move {
            tokio::select! {
                () = here => {}
                () = in_group => {}
            }
        }
    }

    /// Changes the state, and updates the gauge of open circuits.
    pub(super) fn change<V>(&self, change: impl FnOnce(&mut Destination) -> V) -> V {
        let mut state = locked(&self.state);
        let was_closed = state.is_closed();
        let made = change(&mut state);
        let is_closed = state.is_closed();
        drop(state);
        let gauge = || metrics::gauge!(names::OPEN_CIRCUITS, "provider" => self.group.provider);
        match (was_closed, is_closed) {
            (true, false) => gauge().increment(1.0),
            (false, true) => gauge().decrement(1.0),
            (true, true) | (false, false) => {}
        }
        made
    }
}
