//! Concurrency limits: how many of a lane's calls one destination may have in flight. Pure: time
//! is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::{HoldRequest, NotNow, PATIENCE, wait_until};

/// The longest wait for a permit while permits become free.
const QUEUE: Duration = Duration::from_secs(1);
/// How long a destination stays active after its last call.
const ACTIVE_FOR: Duration = Duration::from_secs(10);

/// How many share a lane now: destinations of messages, or the organizations that call hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::providers::governor) struct ActiveCount {
    /// All active ones.
    pub(in crate::providers::governor) all: usize,
    /// Those in the same share: a provider's destinations, or the one organization.
    pub(in crate::providers::governor) own: usize,
}

/// The rules by which a lane's permits are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::providers::governor) struct LaneRules {
    /// The permits of the lane.
    pub(super) capacity: usize,
    /// The guaranteed limit, and the limit after a failed call.
    pub(super) base: usize,
    /// The initial limit.
    pub(super) first: usize,
    /// The limit if nothing else is active.
    pub(super) alone: usize,
}

impl LaneRules {
    /// Returns the rules for a destination of messages in a lane of `capacity` permits: an eighth
    /// of them at first, at least two, and half of them if no other destination is active.
    pub(in crate::providers::governor) fn of_destination(capacity: usize) -> Self {
        let base = (capacity / 8).max(2);
        Self {
            capacity,
            base,
            first: base,
            alone: capacity / 2,
        }
    }

    /// Returns the rules for the hosts of one organization in such a lane: three quarters of the
    /// permits if no other organization is active. They apply from the first call on, because only
    /// this organization calls these hosts from the lane.
    pub(in crate::providers::governor) fn of_host(capacity: usize) -> Self {
        let base = (capacity / 8).max(2);
        let alone = capacity - capacity / 4;
        Self {
            capacity,
            base,
            first: alone.max(base),
            alone,
        }
    }

    /// Returns the most permits for one of `active_count` active destinations.
    pub(super) fn most(self, active_count: usize) -> usize {
        self.part(ActiveCount {
            all: active_count,
            own: 1,
        })
    }

    /// Returns the permits that `own` of `all` active destinations have together: equal parts of
    /// the lane, with one part left for a newcomer, or the rest that a destination that is alone
    /// leaves. A newcomer therefore finds free permits. A provider's destinations together may
    /// have fewer permits than the sum of their initial limits, if more destinations are active
    /// than the lane has initial permits for.
    pub(in crate::providers::governor) fn part(
        self,
        ActiveCount { all, own }: ActiveCount,
    ) -> usize {
        let beside_a_newcomer = self.capacity * own / (all + 1);
        beside_a_newcomer
            .max(self.alone * own / all.max(1))
            .max(self.base)
    }

    /// Returns the permits for all overdue calls of a provider: a quarter of the lane.
    pub(in crate::providers::governor) fn overdue(self) -> usize {
        (self.capacity / 4).max(self.base)
    }

    /// Returns the guaranteed limit.
    pub(in crate::providers::governor) const fn base(self) -> usize {
        self.base
    }
}

/// A destination's concurrency limit in one lane.
#[derive(Debug)]
pub(super) struct Window {
    rules: LaneRules,
    /// How many calls may be in flight now.
    size: usize,
    /// Whether the limit was reached since it last grew.
    was_full: bool,
    /// When a permit was last released.
    freed: Instant,
    /// When the destination was last called from this lane.
    used: Option<Instant>,
}

impl Window {
    pub(super) const fn new(rules: LaneRules, now: Instant) -> Self {
        Self {
            rules,
            size: rules.first,
            was_full: false,
            freed: now,
            used: None,
        }
    }

    /// Returns whether all permits are taken, with `under_way` calls in flight and `active_count`
    /// active destinations.
    pub(super) fn is_full(&mut self, under_way: usize, active_count: usize) -> bool {
        self.size = self.size.min(self.rules.most(active_count));
        let is_full = under_way >= self.size;
        self.was_full |= is_full;
        is_full
    }

    /// Raises the limit by one after an answer, if the limit was reached; `under_way` calls remain
    /// in flight. The next call that asks lowers the limit to the destination's part of the lane.
    pub(super) fn grow(&mut self, under_way: usize) {
        if self.was_full {
            self.size = (self.size + 1).min(self.rules.capacity.max(self.rules.base));
        }
        self.was_full = under_way >= self.size;
    }

    /// Resets the limit to the guaranteed one.
    pub(super) fn shrink(&mut self, under_way: usize) {
        self.size = self.rules.base;
        self.was_full = under_way >= self.size;
    }

    /// Records that a permit was released.
    pub(super) const fn free(&mut self, now: Instant) {
        (self.freed, self.used) = (now, Some(now));
    }

    /// Returns when a permit was last released.
    pub(super) const fn freed(&self) -> Instant {
        self.freed
    }

    /// Records that a call asks.
    pub(super) const fn touch(&mut self, now: Instant) {
        self.used = Some(now);
    }

    /// Returns whether the destination was called from this lane recently.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.used
            .is_some_and(|used| now.saturating_duration_since(used) < ACTIVE_FOR)
    }

    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.size
    }
}

/// Decides whether a call waits for a permit: it waits while permits become free, but not beyond
/// the time at which the deciding call is `overdue`.
pub(in crate::providers::governor) fn wait_for_permit(
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
    fn a_destination_gets_an_eighth_of_the_lane_at_first_and_up_to_its_equal_part_while_it_answers()
    {
        let permits = |capacity, active_count| {
            let rules = LaneRules::of_destination(capacity);
            (rules.first, rules.most(active_count))
        };
        assert_eq!(
            [permits(1, 1), permits(16, 1), permits(64, 1)],
            [(2, 2), (2, 8), (8, 32)]
        );
        assert_eq!(
            [
                permits(16, 2),
                permits(16, 5),
                permits(64, 3),
                permits(64, 100)
            ],
            [(2, 5), (2, 2), (8, 16), (8, 8)]
        );
    }

    #[test]
    fn an_organization_that_is_alone_gets_three_quarters_of_the_lane_and_all_together_never_get_the_whole_lane()
     {
        let most = |capacity, active_count| LaneRules::of_host(capacity).most(active_count);
        assert_eq!(
            [
                most(32, 1),
                most(32, 2),
                most(32, 3),
                most(32, 7),
                most(32, 100)
            ],
            [24, 12, 8, 4, 4]
        );
        assert_eq!([most(16, 1), most(16, 2), most(1, 1)], [12, 6, 2]);
        for (capacity, active_count) in [
            (16, 1),
            (16, 2),
            (16, 7),
            (32, 1),
            (32, 2),
            (32, 3),
            (32, 5),
            (32, 7),
        ] {
            assert!(
                active_count * most(capacity, active_count) < capacity,
                "{active_count} of {capacity}"
            );
        }
    }
}
