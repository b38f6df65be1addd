//! All destinations of one provider in this process: how many of its calls may be under way at a time, and how many of them may
//! be slow. Pure: time is an argument.
//!
//! A provider that hangs under many destinations would take the whole lane, two seats for each. So it has its destinations' part
//! of the lane and no more, and of that a quarter of the lane for calls that are slow or go where the last one was. Destinations
//! that answer quickly are not kept to that quarter.

use tokio::time::Instant;

use super::destination::{BUSY_HOLD, HANGING_HOLD, NotNow, Order, SLOW, Seats, Standing, Why, wait_for_seat};

/// How many destinations share a lane now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crowd {
    /// All that are active.
    pub(super) all: usize,
    /// Those of the provider among them.
    pub(super) own: usize,
}

/// The calls of one provider.
#[derive(Debug)]
pub(super) struct Family {
    seats: Seats,
    /// Whether no other provider is called from the same lane.
    is_alone: bool,
    under_way: Vec<Call>,
    last_number: u64,
    /// When a seat last became free.
    freed: Instant,
    /// Whether a call had to wait for one since then.
    is_wanted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    number: u64,
    began: Instant,
    /// Of its destination when it began.
    standing: Standing,
}

impl Call {
    fn is_slow(self, now: Instant) -> bool {
        now >= self.began + SLOW
    }

    /// Whether it is slow, or may well become so.
    fn is_doubtful(self, now: Instant) -> bool {
        self.standing == Standing::Slow || self.is_slow(now)
    }
}

impl Family {
    pub(super) const fn new(seats: Seats, is_alone: bool, now: Instant) -> Self {
        Self { seats, is_alone, under_way: Vec::new(), last_number: 0, freed: now, is_wanted: false }
    }

    /// What it says at `now` to a call that has waited since `since` to a destination of this standing. Nothing is taken yet.
    pub(super) fn ask(&mut self, standing: Standing, since: Instant, now: Instant, crowd: Crowd) -> Result<(), NotNow> {
        // A full part hangs where its youngest call is slow, the share for slow calls where its oldest is.
        let (why, decides) = if self.is_full(crowd) {
            (Why::ProviderBusy, self.under_way.last())
        } else if self.is_refused(standing, now) {
            let in_the_way = |call: &&Call| call.standing != Standing::Quick || call.is_slow(now);
            (Why::ProviderHangs, self.under_way.iter().find(in_the_way))
        } else {
            return Ok(());
        };
        let began = decides.map(|call| call.began);
        self.is_wanted = true;
        let (hanging, busy) = (Order { why, length: HANGING_HOLD }, Order { why, length: BUSY_HOLD });
        wait_for_seat(began, self.freed, since, now, (hanging, busy))
    }

    /// Whether all seats of the provider's destinations are taken: of those that are active and a newcomer each has an equal part.
    fn is_full(&self, crowd: Crowd) -> bool {
        !self.is_alone && self.under_way.len() >= self.seats.part(crowd)
    }

    /// Whether the provider's slow calls are as many as it may have, and this would be one more. What was never called may turn
    /// out quick: it has a few seats of its own then.
    fn is_refused(&self, standing: Standing, now: Instant) -> bool {
        let count = |is_one: &dyn Fn(Call) -> bool| self.under_way.iter().filter(|call| is_one(**call)).count();
        let hangs = || count(&|call| call.is_doubtful(now)) >= self.seats.slow();
        match standing {
            Standing::Quick => false,
            Standing::New => hangs() && count(&|call| call.standing == Standing::New) >= self.seats.base(),
            Standing::Slow => hangs(),
        }
    }

    /// Counts in a call to which [`Family::ask`] has just said yes; its number.
    pub(super) fn let_out(&mut self, standing: Standing, now: Instant) -> u64 {
        self.last_number += 1;
        self.under_way.push(Call { number: self.last_number, began: now, standing });
        self.last_number
    }

    /// Counts a call out; whether another one waits for its seat.
    pub(super) fn leave(&mut self, number: u64, now: Instant) -> bool {
        self.under_way.retain(|call| call.number != number);
        self.freed = now;
        std::mem::take(&mut self.is_wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// Eight destinations beside four of another provider, in a lane of 16.
    const CROWD: Crowd = Crowd { all: 12, own: 8 };
    const QUICK: Duration = Duration::from_millis(20);

    fn family(now: Instant) -> Family {
        Family::new(Seats::of_lane(16), false, now)
    }

    /// Lets out as many calls as go out at once, up to `most`.
    fn fill(family: &mut Family, standing: Standing, most: usize, now: Instant) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < most && family.ask(standing, now, now, CROWD) == Ok(()) {
            numbers.push(family.let_out(standing, now));
        }
        numbers
    }

    #[test]
    fn a_provider_that_begins_to_hang_takes_its_destinations_part_of_the_lane_and_no_more() {
        let start = Instant::now();
        let mut hanging = family(start);
        assert_eq!(fill(&mut hanging, Standing::Quick, 100, start).len(), 16 * 8 / 13);
        let patience = hanging.ask(Standing::Quick, start, start, CROWD);
        assert!(matches!(patience, Err(NotNow::Wait(until)) if until < start + SLOW), "a seat may become free: {patience:?}");
        let later = start + SLOW;
        let held = Order { why: Why::ProviderBusy, length: HANGING_HOLD };
        assert_eq!(hanging.ask(Standing::Quick, later, later, CROWD), Err(NotNow::Hold(held)), "at once");
        let seats = |own, all| Seats::of_lane(16).part(Crowd { own, all });
        assert_eq!([seats(8, 8), seats(1, 1), seats(1, 40), seats(39, 40)], [14, 8, 2, 15]);
        let mut alone = Family::new(Seats::of_lane(16), true, start);
        assert_eq!(fill(&mut alone, Standing::Quick, 100, start).len(), 100, "there is nobody to leave seats to");
    }

    #[test]
    fn a_quarter_of_the_lane_is_for_slow_calls_and_a_destination_that_answers_quickly_goes_on() {
        let start = Instant::now();
        let mut hanging = family(start);
        let slow = fill(&mut hanging, Standing::Slow, 100, start);
        assert_eq!(slow.len(), 4);
        assert!(matches!(hanging.ask(Standing::Slow, start, start, CROWD), Err(NotNow::Wait(_))), "they may be quick again");
        assert_eq!(fill(&mut hanging, Standing::Quick, 2, start).len(), 2);
        assert_eq!(fill(&mut hanging, Standing::New, 100, start).len(), 2, "who was never called has seats too, but few");
        let later = start + SLOW;
        let held = Order { why: Why::ProviderHangs, length: HANGING_HOLD };
        for standing in [Standing::Slow, Standing::New] {
            assert_eq!(hanging.ask(standing, later, later, CROWD), Err(NotNow::Hold(held)));
        }
        assert_eq!(hanging.ask(Standing::Quick, later, later, CROWD), Ok(()));
        assert!(hanging.leave(slow[0], later), "others have wanted its seat");
        assert!(!hanging.leave(slow[1], later), "nobody since");
    }

    #[test]
    fn calls_that_have_become_slow_count_wherever_they_go_and_without_them_everybody_goes() {
        let start = Instant::now();
        let mut family = family(start);
        let young = fill(&mut family, Standing::New, 4, start);
        assert_eq!(young.len(), 4, "so far nothing is slow");
        assert_eq!(family.ask(Standing::Slow, start, start + QUICK, CROWD), Ok(()));
        let later = start + SLOW;
        assert!(family.ask(Standing::New, later, later, CROWD).is_err());
        family.leave(young[0], later);
        assert_eq!(family.ask(Standing::New, later, later, CROWD), Ok(()));
    }

    proptest! {
        /// Whatever calls come and go, no more are under way than the provider's part, nor slow ones beyond their share that
        /// were known to be slow, and every one is counted out.
        #[test]
        fn a_provider_s_seats_are_never_exceeded_and_never_lost(
            steps in proptest::collection::vec((0..3u8, any::<bool>(), 0..700u64), 1..200)
        ) {
            let mut now = Instant::now();
            let mut family = family(now);
            let mut under_way = Vec::new();
            for (standing, leaves, millis) in steps {
                now += Duration::from_millis(millis);
                let standing = [Standing::New, Standing::Quick, Standing::Slow][usize::from(standing)];
                if family.ask(standing, now, now, CROWD) == Ok(()) {
                    under_way.push(family.let_out(standing, now));
                }
                prop_assert!(family.under_way.len() <= family.seats.part(CROWD));
                let known = family.under_way.iter().filter(|call| call.standing == Standing::Slow).count();
                prop_assert!(known <= family.seats.slow());
                prop_assert_eq!(family.under_way.len(), under_way.len());
                if leaves && !under_way.is_empty() {
                    family.leave(under_way.remove(0), now);
                }
            }
        }
    }
}
