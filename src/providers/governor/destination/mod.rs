//! The state of one destination: token bucket, circuit breaker and concurrency limits. Pure: time
//! is an argument.

mod pace;
mod permits;

use std::time::Duration;

use tokio::time::Instant;

use self::pace::{Pace, SLOW};
use self::permits::Window;
pub(super) use self::permits::{ActiveCount, LaneRules, wait_for_permit};
use super::circuit::{Circuit, FAILURES, Says};
use super::lanes::{CallLane, PerLane};
use super::rates::{Bucket, Rate};
use super::unsaid;

/// The longest wait for a token, and for a permit while none becomes free.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a hanging destination is held.
pub(super) const HANGING_HOLD: Duration = Duration::from_secs(2);
/// How long a destination without a free permit is held, or one that is being probed.
pub(super) const BUSY_HOLD: Duration = Duration::from_secs(1);
/// The longest hold; a longer `Retry-After` is shortened to it.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
/// Tokens that are available when a hold for the rate ends: as many as jobs are released first.
const TOKENS_AFTER_HOLD: u32 = 4;

/// The result of a call, as the governor counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallResult {
    /// It was answered.
    Done,
    /// It was answered, and the destination's rate limit is exceeded.
    RateLimited {
        /// The time to wait, if stated; not zero.
        retry_after: Option<Duration>,
    },
    /// As `RateLimited`, for all destinations under one shared limit (see
    /// [`super::Scope::limited_with`]).
    AllRateLimited {
        /// The time to wait, if stated; not zero.
        retry_after: Option<Duration>,
    },
    /// It failed transiently: a timeout, no connection, a 5xx.
    Failed,
    /// It was refused permanently. The destination itself works.
    Refused,
}

/// The reason of a hold. Its text follows the destination's name.
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

    /// Returns whether the circuit breaker is the reason.
    pub(super) const fn is_circuit(self) -> bool {
        matches!(self, Self::Failing | Self::Probing)
    }

    /// Returns whether only a permit is missing. A call that finds a free permit may ignore such a
    /// hold.
    pub(super) const fn is_for_permits(self) -> bool {
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
    /// Ask again at `until`, or as soon as the state changes.
    Wait {
        /// The time to ask again at the latest.
        until: Instant,
        /// The reason to wait.
        why: Why,
    },
    /// The destination must be held.
    Hold(HoldRequest),
}

impl NotNow {
    /// Returns whether only a permit is missing.
    pub(super) const fn is_for_permits(self) -> bool {
        match self {
            Self::Wait { why, .. } | Self::Hold(HoldRequest { why, .. }) => why.is_for_permits(),
        }
    }
}

/// How a destination has answered so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speed {
    /// No call has ended yet.
    New,
    /// The last call was answered, after any time, or failed at once; and no call in flight is
    /// overdue.
    Quick,
    /// The last call was not answered, or a call in flight is overdue.
    Slow,
}

/// A request to make a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking {
    /// The lane of the call.
    pub(super) lane: CallLane,
    /// The active count of that lane, the destination included.
    pub(super) active_count: ActiveCount,
    /// When the call began to wait.
    pub(super) since: Instant,
    pub(super) now: Instant,
}

/// A call in flight.
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
    /// The speed after the last call.
    speed: Speed,
    windows: PerLane<Window>,
    /// The calls in flight, the oldest first.
    under_way: Vec<Ticket>,
    last_number: u64,
    used: Instant,
}

impl Destination {
    /// Creates a destination that is assumed to answer within `pace` until it shows otherwise.
    pub(super) fn new(
        rate: Rate,
        rules: &PerLane<LaneRules>,
        pace: Duration,
        now: Instant,
    ) -> Self {
        Self {
            rate,
            bucket: Bucket::full(rate, now),
            circuit: Circuit::new(),
            pace: Pace::new(pace, now),
            speed: Speed::New,
            windows: PerLane::new(|lane| Window::new(rules[lane], now)),
            under_way: Vec::new(),
            last_number: 0,
            used: now,
        }
    }

    /// Checks whether a call may go out. Takes no token and no permit.
    pub(super) fn ask(&mut self, asking: Asking) -> Result<(), NotNow> {
        let Asking {
            lane,
            active_count,
            since,
            now,
        } = asking;
        self.touch(lane, now);
        match self.circuit.ask(now) {
            Says::Open(until) => {
                return Err(NotNow::Hold(HoldRequest {
                    why: Why::Failing,
                    length: until - now,
                }));
            }
            Says::Probing => {
                return wait_until(
                    since + PATIENCE,
                    now,
                    HoldRequest {
                        why: Why::Probing,
                        length: BUSY_HOLD,
                    },
                );
            }
            Says::Go | Says::Probe => {}
        }
        let under_way = self.under_way_from(lane);
        if self.windows[lane].is_full(under_way, active_count.all) {
            let youngest = self.under_way.iter().rfind(|ticket| ticket.lane == lane);
            let overdue = youngest.map(|ticket| ticket.began + self.overdue_after());
            let hanging = HoldRequest {
                why: Why::Hanging,
                length: HANGING_HOLD,
            };
            let busy = HoldRequest {
                why: Why::Busy,
                length: BUSY_HOLD,
            };
            return wait_for_permit(
                overdue,
                self.windows[lane].freed(),
                since,
                now,
                (hanging, busy),
            );
        }
        let wait = self.bucket.until_token(self.rate, now);
        if wait.is_zero() {
            return Ok(());
        }
        let request = HoldRequest {
            why: Why::Rate,
            length: self.rate.time_for(TOKENS_AFTER_HOLD).max(BUSY_HOLD),
        };
        let until = now + wait;
        Err(if until > since + PATIENCE {
            NotNow::Hold(request)
        } else {
            NotNow::Wait {
                until,
                why: request.why,
            }
        })
    }

    /// Returns the speed at `now`.
    pub(super) fn speed(&self, now: Instant) -> Speed {
        let is_overdue = self
            .under_way
            .first()
            .is_some_and(|oldest| self.is_overdue(*oldest, now));
        if is_overdue { Speed::Slow } else { self.speed }
    }

    /// Returns the time after which a call is overdue.
    pub(super) fn overdue_after(&self) -> Duration {
        self.pace.overdue_after()
    }

    fn is_overdue(&self, ticket: Ticket, now: Instant) -> bool {
        now >= ticket.began + self.overdue_after()
    }

    /// Takes a token and a permit for a call that [`Destination::ask`] has just admitted.
    pub(super) fn let_out(&mut self, lane: CallLane, now: Instant) -> Ticket {
        let probe = self.circuit.ask(now) == Says::Probe;
        if probe {
            self.circuit.probe();
        }
        self.bucket.take();
        self.last_number += 1;
        let ticket = Ticket {
            number: self.last_number,
            began: now,
            lane,
            probe,
        };
        self.under_way.push(ticket);
        ticket
    }

    /// Records the result of a call. Returns the hold that the result requires; for a rate limit
    /// without a length, the shortest one.
    pub(super) fn settle(
        &mut self,
        ticket: Ticket,
        outcome: CallResult,
        now: Instant,
    ) -> Option<HoldRequest> {
        let took = self.leave(ticket, now);
        let limited = |why, retry_after: Option<Duration>| {
            Some(HoldRequest {
                why,
                length: retry_after.unwrap_or(unsaid::FIRST).min(LONGEST_HOLD),
            })
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
                // A call that fails at once keeps no permit from other calls.
                self.speed = if took < SLOW {
                    Speed::Quick
                } else {
                    Speed::Slow
                };
                self.shrink();
                let until = self.circuit.failed(ticket.probe, now)?;
                Some(HoldRequest {
                    why: Why::Failing,
                    length: until - now,
                })
            }
        }
    }

    /// Records a call that was dropped before its answer: it counts as failed if it was overdue,
    /// and not at all otherwise.
    pub(super) fn drop_call(&mut self, ticket: Ticket, now: Instant) {
        self.leave(ticket, now);
        if self.is_overdue(ticket, now) {
            self.speed = Speed::Slow;
            self.shrink();
            // The next call that asks finds the circuit open and places the hold.
            let _until = self.circuit.failed(ticket.probe, now);
        } else if ticket.probe {
            self.circuit.probe_lost();
        }
    }

    /// Releases the permit. Returns how long the call has taken.
    fn leave(&mut self, ticket: Ticket, now: Instant) -> Duration {
        self.under_way.retain(|one| one.number != ticket.number);
        self.windows[ticket.lane].free(now);
        self.used = now;
        now.saturating_duration_since(ticket.began)
    }

    /// Records that the destination answers, whatever the answer is.
    fn answered(&mut self, ticket: Ticket, took: Duration, now: Instant) {
        self.pace.answered(took, now);
        self.speed = Speed::Quick;
        self.circuit.succeeded(ticket.probe);
    }

    /// Resets the concurrency limit in every lane.
    fn shrink(&mut self) {
        for lane in CallLane::ALL {
            let under_way = self.under_way_from(lane);
            self.windows[lane].shrink(under_way);
        }
    }

    fn under_way_from(&self, lane: CallLane) -> usize {
        self.under_way
            .iter()
            .filter(|ticket| ticket.lane == lane)
            .count()
    }

    /// Records a call from this lane. Returns whether the destination was not active there before.
    pub(super) fn touch(&mut self, lane: CallLane, now: Instant) -> bool {
        let is_new = !self.is_active(lane, now);
        self.windows[lane].touch(now);
        self.used = now;
        is_new
    }

    /// Opens the circuit until `until`, because a hold of an open circuit is in force.
    pub(super) fn seen_open(&mut self, until: Instant) {
        self.circuit.seen_open(until);
    }

    /// Records that the hold ended before its time.
    pub(super) fn released(&mut self, now: Instant) {
        self.circuit.released(now);
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.circuit.is_closed()
    }

    /// Returns whether the destination counts among those that share this lane.
    pub(super) fn is_active(&self, lane: CallLane, now: Instant) -> bool {
        self.windows[lane].is_active(now) || self.under_way.iter().any(|ticket| ticket.lane == lane)
    }

    /// Returns when it was last used, or `None` if its state must be kept.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.under_way.is_empty() && self.circuit.is_closed()).then_some(self.used)
    }
}

fn wait_until(patience: Instant, now: Instant, otherwise: HoldRequest) -> Result<(), NotNow> {
    Err(if now < patience {
        NotNow::Wait {
            until: patience,
            why: otherwise.why,
        }
    } else {
        NotNow::Hold(otherwise)
    })
}

#[cfg(test)]
mod tests;
