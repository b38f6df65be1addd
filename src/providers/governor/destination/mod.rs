//! One destination as its calls are let out: bucket, circuit and seats together. Pure: time is an argument.

mod pace;
mod seats;

use std::time::Duration;

use tokio::time::Instant;

use self::pace::{Pace, SLOW};
use self::seats::Window;
pub(super) use self::seats::{ActiveCount, Seats, wait_for_seat};
use super::circuit::{Circuit, FAILURES, Says};
use super::lanes::{CallLane, PerLane};
use super::rates::{Bucket, Rate};
use super::unsaid;

/// The longest wait for a token, and for a seat while none becomes free.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a destination that hangs is held.
pub(super) const HANGING_HOLD: Duration = Duration::from_secs(2);
/// How long one whose calls cannot all be had a seat for is held, or one that is being probed.
pub(super) const BUSY_HOLD: Duration = Duration::from_secs(1);
/// However long the other side asks for.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
/// Tokens that are there again when a hold for the rate ends: as many as jobs are let go first.
const TOKENS_AFTER_HOLD: u32 = 4;

/// What came of a call, as the governor counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// It was answered.
    Done,
    /// It was answered, and the other side asks for patience.
    RateLimited {
        /// For how long; not for no time at all.
        retry_after: Option<Duration>,
    },
    /// As `RateLimited`, for all destinations that the other side limits together (see [`super::Scope::limited_with`]).
    AllRateLimited {
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
    AllRateLimited,
    Failing,
    Probing,
    Hanging,
    Busy,
    ProviderHangs,
    ProviderBusy,
    TenantBusy,
    Rate,
}

impl Why {
    pub(super) fn text(self) -> String {
        match self {
            Self::RateLimited => "answered 429".to_owned(),
            Self::AllRateLimited => "answered 429 for everything that is sent this way".to_owned(),
            Self::Failing => format!("failed {FAILURES} times in a row"),
            Self::Probing => "is being tried with one call after it failed".to_owned(),
            Self::Hanging => "does not answer: every call has been under way for longer than its answers take".to_owned(),
            Self::Busy => "has as many calls under way as one destination may have".to_owned(),
            Self::ProviderHangs => {
                "is not known to answer, and its provider has as many overdue calls under way as it may have".to_owned()
            }
            Self::ProviderBusy => "belongs to a provider that has as many calls under way as it may have".to_owned(),
            Self::TenantBusy => "has, with its organization's other hosts, as many calls under way as these may have".to_owned(),
            Self::Rate => "takes no more calls for now, by the rate set for it".to_owned(),
        }
    }

    /// Whether it is the circuit that is open.
    pub(super) const fn is_circuit(self) -> bool {
        matches!(self, Self::Failing | Self::Probing)
    }

    /// Whether nothing is wrong but that every seat is taken: whoever finds one free meanwhile may have it.
    pub(super) const fn is_for_seats(self) -> bool {
        matches!(self, Self::Busy | Self::ProviderBusy | Self::TenantBusy)
    }
}

/// A hold to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HoldRequest {
    pub(super) why: Why,
    pub(super) length: Duration,
}

/// Why a call cannot go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNow {
    /// Ask again then, or as soon as something has changed.
    Wait {
        /// When at the latest.
        until: Instant,
        /// What for.
        why: Why,
    },
    /// The destination is to be held.
    Hold(HoldRequest),
}

impl NotNow {
    /// Whether nothing is missing but a seat.
    pub(super) const fn is_for_seats(self) -> bool {
        match self {
            Self::Wait { why, .. } | Self::Hold(HoldRequest { why, .. }) => why.is_for_seats(),
        }
    }
}

/// What is known of how a destination answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing yet.
    New,
    /// Its last call was answered, however long that took, or failed at once; and none that is under way is overdue.
    Quick,
    /// Its last call was not answered, or one that is under way is overdue.
    Slow,
}

/// A call that would go out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// Where it comes from.
    pub(super) lane: CallLane,
    /// How many share that lane, the destination included.
    pub(super) active_count: ActiveCount,
    /// Since when it has waited.
    pub(super) since: Instant,
    pub(super) now: Instant,
}

/// A call under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    number: u64,
    pub(super) began: Instant,
    lane: CallLane,
    probe: bool,
}

/// One destination's state.
#[derive(Debug)]
pub(super) struct Destination {
    rate: Rate,
    bucket: Bucket,
    circuit: Circuit,
    pace: Pace,
    /// As its last call was.
    standing: Standing,
    windows: PerLane<Window>,
    /// Those that began first come first.
    under_way: Vec<Ticket>,
    last_number: u64,
    used: Instant,
}

impl Destination {
    /// One that is taken to answer within `pace` until it has shown something else.
    pub(super) fn new(rate: Rate, seats: &PerLane<Seats>, pace: Duration, now: Instant) -> Self {
        Self {
            rate,
            bucket: Bucket::full(rate, now),
            circuit: Circuit::new(),
            pace: Pace::new(pace, now),
            standing: Standing::New,
            windows: PerLane::new(|lane| Window::new(seats[lane], now)),
            under_way: Vec::new(),
            last_number: 0,
            used: now,
        }
    }

    /// What it says to a call. Nothing is taken yet.
    pub(super) fn ask(&mut self, asking: Asking) -> Result<(), NotNow> {
        let Asking { lane, active_count, since, now } = asking;
        self.touch(lane, now);
        match self.circuit.ask(now) {
            Says::Open(until) => return Err(NotNow::Hold(HoldRequest { why: Why::Failing, length: until - now })),
            Says::Probing => return wait_until(since + PATIENCE, now, HoldRequest { why: Why::Probing, length: BUSY_HOLD }),
            Says::Go | Says::Probe => {}
        }
        let under_way = self.under_way_from(lane);
        if self.windows[lane].is_full(under_way, active_count.all) {
            let youngest = self.under_way.iter().rfind(|ticket| ticket.lane == lane);
            let overdue = youngest.map(|ticket| ticket.began + self.overdue_after());
            let hanging = HoldRequest { why: Why::Hanging, length: HANGING_HOLD };
            let busy = HoldRequest { why: Why::Busy, length: BUSY_HOLD };
            return wait_for_seat(overdue, self.windows[lane].freed(), since, now, (hanging, busy));
        }
        let wait = self.bucket.until_token(self.rate, now);
        if wait.is_zero() {
            return Ok(());
        }
        let request = HoldRequest { why: Why::Rate, length: self.rate.time_for(TOKENS_AFTER_HOLD).max(BUSY_HOLD) };
        let until = now + wait;
        Err(if until > since + PATIENCE { NotNow::Hold(request) } else { NotNow::Wait { until, why: request.why } })
    }

    /// What is known of it at `now`.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let is_overdue = self.under_way.first().is_some_and(|oldest| self.is_overdue(*oldest, now));
        if is_overdue { Standing::Slow } else { self.standing }
    }

    /// A call that takes this long is overdue.
    pub(super) fn overdue_after(&self) -> Duration {
        self.pace.overdue_after()
    }

    fn is_overdue(&self, ticket: Ticket, now: Instant) -> bool {
        now >= ticket.began + self.overdue_after()
    }

    /// Lets a call out to which [`Destination::ask`] has just said yes.
    pub(super) fn let_out(&mut self, lane: CallLane, now: Instant) -> Ticket {
        let probe = self.circuit.ask(now) == Says::Probe;
        if probe {
            self.circuit.probe();
        }
        self.bucket.take();
        self.last_number += 1;
        let ticket = Ticket { number: self.last_number, began: now, lane, probe };
        self.under_way.push(ticket);
        ticket
    }

    /// Counts a call out, with what came of it; a hold to be placed because of it. That of a limit without a length is the
    /// shortest one.
    pub(super) fn settle(&mut self, ticket: Ticket, outcome: CallResult, now: Instant) -> Option<HoldRequest> {
        let took = self.leave(ticket, now);
        let limited = |why, retry_after: Option<Duration>| {
            Some(HoldRequest { why, length: retry_after.unwrap_or(unsaid::FIRST).min(LONGEST_HOLD) })
        };
        match outcome {
            CallResult::Done | CallResult::Refused => {
                self.answered(ticket, took, now);
                let under_way = self.under_way_from(ticket.lane);
                self.windows[ticket.lane].grow(under_way);
                None
            }
            CallResult::RateLimited { retry_after } => {
                self.answered(ticket, took, now);
                self.shrink();
                limited(Why::RateLimited, retry_after)
            }
            CallResult::AllRateLimited { retry_after } => {
                self.answered(ticket, took, now);
                self.shrink();
                limited(Why::AllRateLimited, retry_after)
            }
            CallResult::Failed => {
                // What is refused at once takes nobody's seat.
                self.standing = if took < SLOW { Standing::Quick } else { Standing::Slow };
                self.shrink();
                let until = self.circuit.failed(ticket.probe, now)?;
                Some(HoldRequest { why: Why::Failing, length: until - now })
            }
        }
    }

    /// Counts a call out that was dropped before its answer: an overdue one has failed, any other says nothing.
    pub(super) fn drop_call(&mut self, ticket: Ticket, now: Instant) {
        self.leave(ticket, now);
        if self.is_overdue(ticket, now) {
            self.standing = Standing::Slow;
            self.shrink();
            // Who asks next finds the circuit open and places the hold.
            let _until = self.circuit.failed(ticket.probe, now);
        } else if ticket.probe {
            self.circuit.probe_lost();
        }
    }

    /// Frees the seat; how long the call has taken.
    fn leave(&mut self, ticket: Ticket, now: Instant) -> Duration {
        self.under_way.retain(|one| one.number != ticket.number);
        self.windows[ticket.lane].free(now);
        self.used = now;
        now.saturating_duration_since(ticket.began)
    }

    /// Whatever the answer is, the destination gives answers.
    fn answered(&mut self, ticket: Ticket, took: Duration, now: Instant) {
        self.pace.answered(took, now);
        self.standing = Standing::Quick;
        self.circuit.succeeded(ticket.probe);
    }

    /// Back to its first seats, wherever it is called from.
    fn shrink(&mut self) {
        for lane in CallLane::ALL {
            let under_way = self.under_way_from(lane);
            self.windows[lane].shrink(under_way);
        }
    }

    fn under_way_from(&self, lane: CallLane) -> usize {
        self.under_way.iter().filter(|ticket| ticket.lane == lane).count()
    }

    /// It is called from this lane; whether it was not, of late.
    pub(super) fn touch(&mut self, lane: CallLane, now: Instant) -> bool {
        let is_new = !self.is_active(lane, now);
        self.windows[lane].touch(now);
        self.used = now;
        is_new
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

    /// Whether it is one of those that share this lane's seats.
    pub(super) fn is_active(&self, lane: CallLane, now: Instant) -> bool {
        self.windows[lane].is_active(now) || self.under_way.iter().any(|ticket| ticket.lane == lane)
    }

    /// When it was last used, where forgetting it would lose nothing.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.under_way.is_empty() && self.circuit.is_closed()).then_some(self.used)
    }
}

fn wait_until(patience: Instant, now: Instant, otherwise: HoldRequest) -> Result<(), NotNow> {
    Err(if now < patience { NotNow::Wait { until: patience, why: otherwise.why } } else { NotNow::Hold(otherwise) })
}

#[cfg(test)]
mod tests;
