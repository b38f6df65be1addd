//! Seats: how many calls may be under way at a time, of those that a lane has. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::{HoldRequest, NotNow, PATIENCE, wait_until};

/// The longest wait for a seat while seats become free.
const QUEUE: Duration = Duration::from_secs(1);
/// After its last call a destination still counts among those that share a lane.
const ACTIVE_FOR: Duration = Duration::from_secs(10);

/// How many share a lane now: destinations of messages; of hosts, the organizations whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::providers::governor) struct ActiveCount {
    /// All that are active.
    pub(in crate::providers::governor) all: usize,
    /// Those among them that have seats together: a provider's destinations, an organization by itself.
    pub(in crate::providers::governor) own: usize,
}

/// How the seats of a lane are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::providers::governor) struct Seats {
    /// Of the lane.
    pub(super) capacity: usize,
    /// Whatever happens, and after every failed call.
    pub(super) base: usize,
    /// At first.
    pub(super) first: usize,
    /// Where nobody else is active.
    pub(super) alone: usize,
}

impl Seats {
    /// Of a lane with `capacity` seats, at a destination of messages: at first an eighth of them, but at least two; half of them
    /// where no other one is active.
    pub(in crate::providers::governor) fn of_destination(capacity: usize) -> Self {
        let base = (capacity / 8).max(2);
        Self { capacity, base, first: base, alone: capacity / 2 }
    }

    /// Of such a lane, at the hosts of one organization: three quarters where no other one is active, and from the first call on,
    /// since nobody else calls them from there.
    pub(in crate::providers::governor) fn of_host(capacity: usize) -> Self {
        let base = (capacity / 8).max(2);
        let alone = capacity - capacity / 4;
        Self { capacity, base, first: alone.max(base), alone }
    }

    /// Of one of `active_count` that are active.
    pub(super) fn most(self, active_count: usize) -> usize {
        self.part(ActiveCount { all: active_count, own: 1 })
    }

    /// Of some of those that are active together: equal parts, such that one is left for a newcomer or what one that is alone
    /// leaves, so that nobody ever sits where another one would. A provider's destinations may have less than their first seats
    /// together, where more are active than the lane has first seats for.
    pub(in crate::providers::governor) fn part(self, ActiveCount { all, own }: ActiveCount) -> usize {
        let beside_a_newcomer = self.capacity * own / (all + 1);
        beside_a_newcomer.max(self.alone * own / all.max(1)).max(self.base)
    }

    /// Of all calls of a provider that are overdue: a quarter of the lane.
    pub(in crate::providers::governor) fn overdue(self) -> usize {
        (self.capacity / 4).max(self.base)
    }

    /// Whatever happens.
    pub(in crate::providers::governor) const fn base(self) -> usize {
        self.base
    }
}

/// A destination's seats in one lane.
#[derive(Debug)]
pub(super) struct Window {
    seats: Seats,
    /// How many calls may be under way now.
    size: usize,
    /// Whether a call had to wait for a seat since it last grew.
    was_full: bool,
    /// When a seat last became free.
    freed: Instant,
    /// When it was last called from this lane.
    used: Option<Instant>,
}

impl Window {
    pub(super) const fn new(seats: Seats, now: Instant) -> Self {
        Self { seats, size: seats.first, was_full: false, freed: now, used: None }
    }

    /// Whether all seats are taken for a call that comes while `active_count` are active and so many are under way.
    pub(super) fn is_full(&mut self, under_way: usize, active_count: usize) -> bool {
        self.size = self.size.min(self.seats.most(active_count));
        let is_full = under_way >= self.size;
        self.was_full |= is_full;
        is_full
    }

    /// One seat more after an answer, where seats were wanted; so many calls are still under way. Cut to the part of the lane by
    /// whoever asks next.
    pub(super) fn grow(&mut self, under_way: usize) {
        if self.was_full {
            self.size = (self.size + 1).min(self.seats.capacity.max(self.seats.base));
        }
        self.was_full = under_way >= self.size;
    }

    /// Back to the seats that are left whatever happens.
    pub(super) fn shrink(&mut self, under_way: usize) {
        self.size = self.seats.base;
        self.was_full = under_way >= self.size;
    }

    /// A seat has become free.
    pub(super) const fn free(&mut self, now: Instant) {
        (self.freed, self.used) = (now, Some(now));
    }

    /// When a seat last became free.
    pub(super) const fn freed(&self) -> Instant {
        self.freed
    }

    /// A call asks.
    pub(super) const fn touch(&mut self, now: Instant) {
        self.used = Some(now);
    }

    /// Whether it was called from this lane of late.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.used.is_some_and(|used| now.saturating_duration_since(used) < ACTIVE_FOR)
    }

    /// How many calls may be under way.
    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.size
    }
}

/// Seats are waited for while they become free; not where the call that decides it is `overdue` from then on.
pub(in crate::providers::governor) fn wait_for_seat(
    overdue: Option<Instant>,
    freed: Instant,
    since: Instant,
    now: Instant,
    (hanging, busy): (HoldRequest, HoldRequest),
) -> Result<(), NotNow> {
    let hang_from = overdue.unwrap_or(now);
    if now >= hang_from {
        return Err(NotNow::Hold(hanging));
    }
    let patience = (freed.max(since) + PATIENCE).min(since + QUEUE);
    wait_until(patience.min(hang_from), now, busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_gives_one_destination_an_eighth_of_its_seats_and_while_it_answers_its_part_of_all() {
        let seats = |capacity, active_count| {
            let seats = Seats::of_destination(capacity);
            (seats.first, seats.most(active_count))
        };
        assert_eq!([seats(1, 1), seats(16, 1), seats(64, 1)], [(2, 2), (2, 8), (8, 32)]);
        assert_eq!([seats(16, 2), seats(16, 5), seats(64, 3), seats(64, 100)], [(2, 5), (2, 2), (8, 16), (8, 8)]);
    }

    #[test]
    fn an_organization_alone_has_three_quarters_of_a_lane_for_its_hosts_and_all_never_have_the_whole_lane() {
        let most = |capacity, active_count| Seats::of_host(capacity).most(active_count);
        assert_eq!([most(32, 1), most(32, 2), most(32, 3), most(32, 7), most(32, 100)], [24, 12, 8, 4, 4]);
        assert_eq!([most(16, 1), most(16, 2), most(1, 1)], [12, 6, 2]);
        for (capacity, active_count) in [(16, 1), (16, 2), (16, 7), (32, 1), (32, 2), (32, 3), (32, 5), (32, 7)] {
            assert!(active_count * most(capacity, active_count) < capacity, "{active_count} of {capacity}");
        }
    }
}
