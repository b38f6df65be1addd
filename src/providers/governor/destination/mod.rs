//! One destination as its calls are let out: bucket, circuit and seats together. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::circuit::{Circuit, FAILURES, Says};
use super::family::Crowd;
use super::rates::{Bucket, Rate};

/// A call that takes longer is slow; where all of a destination's calls are, it hangs.
pub(super) const SLOW: Duration = Duration::from_secs(1);
/// The longest wait for a token, and for a seat while none becomes free.
const PATIENCE: Duration = Duration::from_millis(250);
/// The longest wait for a seat while seats become free.
const QUEUE: Duration = Duration::from_secs(1);
/// How long a destination that hangs is held.
pub(super) const HANGING_HOLD: Duration = Duration::from_secs(2);
/// How long one whose calls cannot all be had a seat for is held, or one that is being probed.
pub(super) const BUSY_HOLD: Duration = Duration::from_secs(1);
/// A 429 that does not say for how long.
const UNSAID: Duration = Duration::from_secs(5);
/// However long the other side asks for.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
/// After its last call a destination still counts among those that share a lane.
const ACTIVE_FOR: Duration = Duration::from_secs(10);
/// Tokens that are there again when a hold for the rate ends: as many as jobs are let go first.
const TOKENS_AFTER_HOLD: u32 = 4;

/// What came of a call, as the governor counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Done,
    /// It was answered, and the other side asks for patience.
    RateLimited {
        /// For how long; not for no time at all.
        retry_after: Option<Duration>,
    },
    /// It failed in a way that passes by: a timeout, no connection, a 5xx.
    Failed,
    /// It was refused for good, which says nothing against the destination.
    Refused,
}

/// Why a destination is held. The words follow its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    RateLimited,
    Failing,
    Probing,
    Hanging,
    Busy,
    ProviderHangs,
    ProviderBusy,
    Rate,
}

impl Why {
    pub(super) fn text(self) -> String {
        match self {
            Self::RateLimited => "answered 429".to_owned(),
            Self::Failing => format!("failed {FAILURES} times in a row"),
            Self::Probing => "is being tried with one call after it failed".to_owned(),
            Self::Hanging => "does not answer: every call has been under way for more than a second".to_owned(),
            Self::Busy => "has as many calls under way as one destination may have".to_owned(),
            Self::ProviderHangs => {
                "is not known to be quick, and its provider has as many slow calls under way as it may have".to_owned()
            }
            Self::ProviderBusy => "belongs to a provider that has as many calls under way as it may have".to_owned(),
            Self::Rate => "takes no more calls for now, by the rate set for it".to_owned(),
        }
    }

    /// Whether it is the circuit that is open.
    pub(super) const fn is_circuit(self) -> bool {
        matches!(self, Self::Failing | Self::Probing)
    }
}

/// A hold to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) why: Why,
    pub(super) length: Duration,
}

/// Why a call cannot go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNow {
    /// Ask again then, or as soon as something has changed.
    Wait(Instant),
    /// The destination is to be held.
    Hold(Order),
}

/// What is known of how a destination answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing yet.
    New,
    /// Its last call was quick, and none that is under way is slow.
    Quick,
    /// Its last call was slow, or one that is under way is.
    Slow,
}

/// A call under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    number: u64,
    began: Instant,
    probe: bool,
}

/// How many calls to one destination may be under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seats {
    /// Of the lane.
    capacity: usize,
    /// At first, and again after every slow or failed call.
    base: usize,
}

impl Seats {
    /// Of a lane with `capacity` seats: an eighth of them, but at least two.
    pub(super) fn of_lane(capacity: usize) -> Self {
        Self { capacity, base: (capacity / 8).max(2) }
    }

    /// While calls are quick and `crowd` destinations are active: an equal part that leaves one over for a newcomer, so that
    /// no destination ever sits where another one would.
    fn most(self, crowd: usize) -> usize {
        (self.capacity / (crowd.max(1) + 1)).max(self.base)
    }

    /// Of all destinations of a provider: the same equal parts together, which are less than what each may have where more are
    /// active than the lane has first seats for.
    pub(super) fn part(self, crowd: Crowd) -> usize {
        (self.capacity * crowd.own / (crowd.all + 1)).max(self.base)
    }

    /// Of all calls of a provider that are slow: a quarter of the lane.
    pub(super) fn slow(self) -> usize {
        (self.capacity / 4).max(self.base)
    }

    /// At first.
    pub(super) const fn base(self) -> usize {
        self.base
    }
}

/// One destination's state.
#[derive(Debug)]
pub(super) struct Destination {
    rate: Rate,
    seats: Seats,
    bucket: Bucket,
    circuit: Circuit,
    under_way: Vec<Ticket>,
    /// As its last call was.
    standing: Standing,
    /// How many may be under way now.
    window: usize,
    /// Whether a call had to wait for a seat since the window last grew.
    was_full: bool,
    /// When a seat last became free.
    freed: Instant,
    last_number: u64,
    used: Instant,
}

impl Destination {
    pub(super) fn new(rate: Rate, seats: Seats, now: Instant) -> Self {
        Self {
            rate,
            seats,
            bucket: Bucket::full(rate, now),
            circuit: Circuit::new(),
            under_way: Vec::new(),
            standing: Standing::New,
            window: seats.base,
            was_full: false,
            freed: now,
            last_number: 0,
            used: now,
        }
    }

    /// What it says at `now` to a call that has waited since `since`, while `crowd` destinations of its lane are active, itself
    /// included. Nothing is taken yet.
    pub(super) fn ask(&mut self, since: Instant, now: Instant, crowd: usize) -> Result<(), NotNow> {
        self.used = now;
        match self.circuit.ask(now) {
            Says::Open(until) => return Err(NotNow::Hold(Order { why: Why::Failing, length: until - now })),
            Says::Probing => return wait_until(since + PATIENCE, now, Order { why: Why::Probing, length: BUSY_HOLD }),
            Says::Go | Says::Probe => {}
        }
        self.window = self.window.min(self.seats.most(crowd));
        if self.under_way.len() >= self.window {
            self.was_full = true;
            let began = self.under_way.last().map(|ticket| ticket.began);
            let hanging = Order { why: Why::Hanging, length: HANGING_HOLD };
            return wait_for_seat(began, self.freed, since, now, (hanging, Order { why: Why::Busy, length: BUSY_HOLD }));
        }
        let wait = self.bucket.until_token(self.rate, now);
        if wait.is_zero() {
            return Ok(());
        }
        let order = Order { why: Why::Rate, length: self.rate.time_for(TOKENS_AFTER_HOLD).max(BUSY_HOLD) };
        Err(if now + wait > since + PATIENCE { NotNow::Hold(order) } else { NotNow::Wait(now + wait) })
    }

    /// What is known of it at `now`.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let is_slow = self.under_way.first().is_some_and(|oldest| now >= oldest.began + SLOW);
        if is_slow { Standing::Slow } else { self.standing }
    }

    /// Lets a call out to which [`Destination::ask`] has just said yes.
    pub(super) fn let_out(&mut self, now: Instant) -> Ticket {
        let probe = self.circuit.ask(now) == Says::Probe;
        if probe {
            self.circuit.probe();
        }
        self.bucket.take();
        self.last_number += 1;
        let ticket = Ticket { number: self.last_number, began: now, probe };
        self.under_way.push(ticket);
        ticket
    }

    /// Counts a call out, with what came of it; a hold to be placed because of it.
    pub(super) fn settle(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) -> Option<Order> {
        let is_quick = self.leave(ticket, now);
        self.standing = if is_quick { Standing::Quick } else { Standing::Slow };
        match outcome {
            Outcome::Done | Outcome::Refused => {
                self.circuit.succeeded(ticket.probe);
                self.resize(is_quick);
                None
            }
            Outcome::RateLimited { retry_after } => {
                self.circuit.succeeded(ticket.probe);
                self.resize(false);
                let length = retry_after.unwrap_or(UNSAID).min(LONGEST_HOLD);
                Some(Order { why: Why::RateLimited, length })
            }
            Outcome::Failed => {
                self.resize(false);
                let until = self.circuit.failed(ticket.probe, now)?;
                Some(Order { why: Why::Failing, length: until - now })
            }
        }
    }

    /// Counts a call out that was dropped before its answer: a slow one has failed, a quick one says nothing.
    pub(super) fn drop_call(&mut self, ticket: Ticket, now: Instant) {
        if !self.leave(ticket, now) {
            self.standing = Standing::Slow;
            self.resize(false);
            // Who asks next finds the circuit open and places the hold.
            let _until = self.circuit.failed(ticket.probe, now);
        } else if ticket.probe {
            self.circuit.probe_lost();
        }
    }

    /// Frees the seat; whether the call was quick.
    fn leave(&mut self, ticket: Ticket, now: Instant) -> bool {
        self.under_way.retain(|one| one.number != ticket.number);
        self.freed = now;
        self.used = now;
        now.saturating_duration_since(ticket.began) < SLOW
    }

    /// One seat more for a quick call where seats were wanted, back to the first ones for any other.
    fn resize(&mut self, is_quick: bool) {
        if !is_quick {
            self.window = self.seats.base;
        } else if self.was_full {
            // Cut to its part of the lane by whoever asks next.
            self.window = (self.window + 1).min(self.seats.capacity.max(self.seats.base));
        }
        self.was_full = self.under_way.len() >= self.window;
    }

    /// Another replica, or this one, has an open circuit until then.
    pub(super) fn seen_open(&mut self, until: Instant) {
        self.circuit.seen_open(until);
    }

    /// Its hold is gone before its time.
    pub(super) fn released(&mut self, now: Instant) {
        self.circuit.released(now);
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.circuit.is_closed()
    }

    /// Whether it is one of those that share the lane's seats.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        !self.under_way.is_empty() || now.saturating_duration_since(self.used) < ACTIVE_FOR
    }

    /// When it was last used, where forgetting it would lose nothing.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.under_way.is_empty() && self.circuit.is_closed()).then_some(self.used)
    }
}

/// Seats are waited for while they become free; not where the call that decides it, which `began` then, is slow.
pub(super) fn wait_for_seat(
    began: Option<Instant>,
    freed: Instant,
    since: Instant,
    now: Instant,
    (hanging, busy): (Order, Order),
) -> Result<(), NotNow> {
    let hang_from = began.map_or(now, |began| began + SLOW);
    if now >= hang_from {
        return Err(NotNow::Hold(hanging));
    }
    let patience = (freed.max(since) + PATIENCE).min(since + QUEUE);
    wait_until(patience.min(hang_from), now, busy)
}

fn wait_until(patience: Instant, now: Instant, otherwise: Order) -> Result<(), NotNow> {
    Err(if now < patience { NotNow::Wait(patience) } else { NotNow::Hold(otherwise) })
}

#[cfg(test)]
mod tests;
