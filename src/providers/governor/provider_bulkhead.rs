//! The bulkhead of one provider in one lane of this process: how many of its calls may be in
//! flight, and how many of them may be overdue. Pure: time is an argument.
//!
//! A provider that hangs under many destinations would take the whole lane, two permits for each.
//! So the provider gets at most its destinations' share of the lane. Calls that are overdue, or go
//! to a destination that did not answer its last call, together get at most a quarter of the lane.
//! Destinations that answer, however slowly, are not limited to that quarter. All hosts belong to
//! one provider, so for hosts each organization has its own share of the lane.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::destination::{
    ActiveCount, Asking, BUSY_HOLD, HANGING_HOLD, HoldRequest, LaneRules, NotNow, Speed, Why,
    wait_for_permit,
};

/// The calls in flight of one provider.
#[derive(Debug)]
pub(super) struct ProviderBulkhead {
    rules: LaneRules,
    under_way: Vec<CallUnderWay>,
    last_number: u64,
    /// When a permit was last released.
    freed: Instant,
    /// Whether a call had to wait for a permit since then.
    is_wanted: bool,
}

/// The destination of a call, as its state was when the call asked.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) speed: Speed,
    /// The organization, for a host.
    pub(super) tenant: Option<Arc<str>>,
    /// A call that takes this long is overdue.
    pub(super) overdue_after: Duration,
}

#[derive(Debug, Clone)]
struct CallUnderWay {
    number: u64,
    began: Instant,
    to: Member,
}

impl CallUnderWay {
    fn overdue_at(&self) -> Instant {
        self.began + self.to.overdue_after
    }

    /// Returns whether the call is overdue, or likely to become so.
    fn is_doubtful(&self, now: Instant) -> bool {
        self.to.speed == Speed::Slow || now >= self.overdue_at()
    }
}

impl ProviderBulkhead {
    pub(super) const fn new(rules: LaneRules, now: Instant) -> Self {
        Self {
            rules,
            under_way: Vec::new(),
            last_number: 0,
            freed: now,
            is_wanted: false,
        }
    }

    /// Checks whether a call to this destination may go out. Takes no permit.
    pub(super) fn ask(&mut self, to: &Member, asking: Asking) -> Result<(), NotNow> {
        let Asking {
            active_count,
            since,
            now,
            ..
        } = asking;
        // A full share hangs if its youngest call is overdue; the quarter for overdue calls hangs
        // if its oldest call is.
        let (why, decides) = if self.is_full(to, active_count) {
            let why = if to.tenant.is_some() {
                Why::TenantBusy
            } else {
                Why::ProviderBusy
            };
            (why, self.together_with(to).last())
        } else if self.is_refused(to, now) {
            let in_the_way =
                |call: &&CallUnderWay| call.to.speed != Speed::Quick || call.is_doubtful(now);
            (Why::ProviderHangs, self.under_way.iter().find(in_the_way))
        } else {
            return Ok(());
        };
        let overdue_at = decides.map(CallUnderWay::overdue_at);
        self.is_wanted = true;
        let (hanging, busy) = (
            HoldRequest {
                why,
                length: HANGING_HOLD,
            },
            HoldRequest {
                why,
                length: BUSY_HOLD,
            },
        );
        wait_for_permit(overdue_at, self.freed, since, now, (hanging, busy))
    }

    /// Returns whether all permits of the share that `to` belongs to are taken.
    fn is_full(&self, to: &Member, active_count: ActiveCount) -> bool {
        self.together_with(to).count() >= self.rules.part(active_count)
    }

    /// Returns the calls that count in the same share: the organization's, or all.
    fn together_with<'a>(&'a self, to: &'a Member) -> impl Iterator<Item = &'a CallUnderWay> {
        self.under_way
            .iter()
            .filter(|call| call.to.tenant == to.tenant)
    }

    /// Returns whether the provider has as many overdue calls as it may have, and this call could
    /// become one more. Destinations that were never called have a few permits of their own, to
    /// show whether they answer.
    fn is_refused(&self, to: &Member, now: Instant) -> bool {
        let hangs = || {
            self.under_way
                .iter()
                .filter(|call| call.is_doubtful(now))
                .count()
                >= self.rules.overdue()
        };
        let new = || {
            self.together_with(to)
                .filter(|call| call.to.speed == Speed::New)
                .count()
        };
        match to.speed {
            Speed::Quick => false,
            Speed::New => hangs() && new() >= self.rules.base(),
            Speed::Slow => hangs(),
        }
    }

    /// Takes a permit for a call that [`ProviderBulkhead::ask`] has just admitted, and returns the
    /// number of the call.
    pub(super) fn let_out(&mut self, to: Member, now: Instant) -> u64 {
        self.last_number += 1;
        self.under_way.push(CallUnderWay {
            number: self.last_number,
            began: now,
            to,
        });
        self.last_number
    }

    /// Releases a call's permit. Returns whether another call waits for it.
    pub(super) fn leave(&mut self, number: u64, now: Instant) -> bool {
        self.under_way.retain(|call| call.number != number);
        self.freed = now;
        std::mem::take(&mut self.is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lanes::CallLane;
    use super::*;

    /// Eight destinations beside four of another provider, in a lane of 16.
    const ACTIVE: ActiveCount = ActiveCount { all: 12, own: 8 };
    const QUICK: Duration = Duration::from_millis(20);
    /// A call that takes this long is overdue.
    const SLOW: Duration = Duration::from_secs(1);

    fn bulkhead(now: Instant) -> ProviderBulkhead {
        ProviderBulkhead::new(LaneRules::of_destination(16), now)
    }

    fn member(speed: Speed) -> Member {
        Member {
            speed,
            tenant: None,
            overdue_after: SLOW,
        }
    }

    fn ask(
        bulkhead: &mut ProviderBulkhead,
        speed: Speed,
        since: Instant,
        now: Instant,
        active_count: ActiveCount,
    ) -> Result<(), NotNow> {
        bulkhead.ask(
            &member(speed),
            Asking {
                lane: CallLane::Messaging,
                active_count,
                since,
                now,
            },
        )
    }

    /// Admits as many calls as the bulkhead allows at once, up to `most`.
    fn fill(bulkhead: &mut ProviderBulkhead, speed: Speed, most: usize, now: Instant) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < most && ask(bulkhead, speed, now, now, ACTIVE) == Ok(()) {
            numbers.push(bulkhead.let_out(member(speed), now));
        }
        numbers
    }

    #[test]
    fn a_provider_that_begins_to_hang_takes_at_most_its_destinations_share_of_the_lane() {
        let start = Instant::now();
        let mut hanging = bulkhead(start);
        assert_eq!(
            fill(&mut hanging, Speed::Quick, 100, start).len(),
            16 * 8 / 13
        );
        let patience = ask(&mut hanging, Speed::Quick, start, start, ACTIVE);
        assert!(
            matches!(patience, Err(NotNow::Wait { until, .. }) if until < start + SLOW),
            "a permit may become free: {patience:?}"
        );
        let later = start + SLOW;
        let held = HoldRequest {
            why: Why::ProviderBusy,
            length: HANGING_HOLD,
        };
        assert_eq!(
            ask(&mut hanging, Speed::Quick, later, later, ACTIVE),
            Err(NotNow::Hold(held)),
            "at once"
        );
        let permits = |own, all| LaneRules::of_destination(16).part(ActiveCount { own, all });
        assert_eq!(
            [
                permits(8, 8),
                permits(1, 1),
                permits(1, 40),
                permits(39, 40)
            ],
            [14, 8, 2, 15]
        );
    }

    #[test]
    fn each_organization_has_its_own_share_of_the_lane_for_hosts() {
        let now = Instant::now();
        let mut hosts = ProviderBulkhead::new(LaneRules::of_host(16), now);
        let asking = Asking {
            lane: CallLane::AssigneeSync,
            active_count: ActiveCount { all: 2, own: 1 },
            since: now,
            now,
        };
        let mut fill = |tenant: &str, speed| {
            let to = Member {
                speed,
                tenant: Some(tenant.into()),
                overdue_after: SLOW,
            };
            let mut count = 0;
            while hosts.ask(&to, asking) == Ok(()) {
                hosts.let_out(to.clone(), now);
                count += 1;
            }
            let full = HoldRequest {
                why: Why::TenantBusy,
                length: BUSY_HOLD,
            };
            let later = Asking {
                now: now + SLOW / 2,
                ..asking
            };
            (count, hosts.ask(&to, later) == Err(NotNow::Hold(full)))
        };
        assert_eq!(
            ["acme", "umbrella"].map(|tenant| fill(tenant, Speed::New)),
            [(6, true), (6, true)]
        );
        let to = |tenant: &str| Member {
            speed: Speed::New,
            tenant: Some(tenant.into()),
            overdue_after: SLOW,
        };
        let later = Asking {
            active_count: ActiveCount { all: 3, own: 1 },
            since: now + SLOW,
            now: now + SLOW,
            ..asking
        };
        assert_eq!(
            hosts.ask(&to("initech"), later),
            Ok(()),
            "the overdue calls of others are not its own"
        );
        assert!(hosts.ask(&to("acme"), later).is_err());
    }

    #[test]
    fn calls_that_may_hang_get_a_quarter_of_the_lane_and_a_destination_that_answers_is_not_limited_to_it()
     {
        let start = Instant::now();
        let mut hanging = bulkhead(start);
        let slow = fill(&mut hanging, Speed::Slow, 100, start);
        assert_eq!(slow.len(), 4);
        assert!(
            matches!(
                ask(&mut hanging, Speed::Slow, start, start, ACTIVE),
                Err(NotNow::Wait { .. })
            ),
            "their answers may still arrive"
        );
        assert_eq!(fill(&mut hanging, Speed::Quick, 2, start).len(), 2);
        assert_eq!(
            fill(&mut hanging, Speed::New, 100, start).len(),
            2,
            "destinations that were never called have a few permits"
        );
        let later = start + SLOW;
        let held = HoldRequest {
            why: Why::ProviderHangs,
            length: HANGING_HOLD,
        };
        for speed in [Speed::Slow, Speed::New] {
            assert_eq!(
                ask(&mut hanging, speed, later, later, ACTIVE),
                Err(NotNow::Hold(held))
            );
        }
        assert_eq!(
            ask(&mut hanging, Speed::Quick, later, later, ACTIVE),
            Ok(())
        );
        assert!(
            hanging.leave(slow[0], later),
            "others have waited for its permit"
        );
        assert!(!hanging.leave(slow[1], later), "nobody since");
    }

    #[test]
    fn overdue_calls_to_any_destination_count_and_without_them_every_call_is_admitted() {
        let start = Instant::now();
        let mut bulkhead = bulkhead(start);
        let young = fill(&mut bulkhead, Speed::New, 4, start);
        assert_eq!(young.len(), 4, "so far nothing is slow");
        assert_eq!(
            ask(&mut bulkhead, Speed::Slow, start, start + QUICK, ACTIVE),
            Ok(())
        );
        let later = start + SLOW;
        assert!(ask(&mut bulkhead, Speed::New, later, later, ACTIVE).is_err());
        bulkhead.leave(young[0], later);
        assert_eq!(ask(&mut bulkhead, Speed::New, later, later, ACTIVE), Ok(()));
    }

    proptest! {
        /// For any sequence of calls, at most the provider's share is in flight, and at most a
        /// quarter of the lane goes to destinations known as slow; and every permit is released.
        #[test]
        fn a_provider_s_permits_are_never_exceeded_and_never_lost(
            steps in proptest::collection::vec((0..3u8, any::<bool>(), 0..700u64), 1..200)
        ) {
            let mut now = Instant::now();
            let mut bulkhead = bulkhead(now);
            let mut under_way = Vec::new();
            for (speed, leaves, millis) in steps {
                now += Duration::from_millis(millis);
                let speed = [Speed::New, Speed::Quick, Speed::Slow][usize::from(speed)];
                if ask(&mut bulkhead, speed, now, now, ACTIVE) == Ok(()) {
                    under_way.push(bulkhead.let_out(member(speed), now));
                }
                prop_assert!(bulkhead.under_way.len() <= bulkhead.rules.part(ACTIVE));
                let known = bulkhead.under_way.iter().filter(|call| call.to.speed == Speed::Slow).count();
                prop_assert!(known <= bulkhead.rules.overdue());
                prop_assert_eq!(bulkhead.under_way.len(), under_way.len());
                if leaves && !under_way.is_empty() {
                    bulkhead.leave(under_way.remove(0), now);
                }
            }
        }
    }
}
