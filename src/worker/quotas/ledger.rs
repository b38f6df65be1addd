//! The room that this replica has in one quota without asking Postgres. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::quota::{Amount, Grant, Over};

/// The least time before a full quota is asked about again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// The same as a multiple of the time that asking took: a producer over its quota uses Postgres
/// for at most a twentieth of the time.
const AGAIN_AFTER_TIMES: u32 = 20;
/// The least time between log lines about a full quota.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// The least time between announcements of refusals of which nothing is stored.
const ANNOUNCED_EVERY: Duration = Duration::from_secs(1);

/// The ledger of one quota of one holder.
#[derive(Debug)]
pub(super) struct Ledger {
    /// What is left of the last grant.
    left: Amount,
    until: Instant,
    /// Taken, and not known to be stored.
    making: Amount,
    over: Option<(Over, Instant)>,
    /// How much of the quota was used when Postgres was last asked.
    pub(super) fullness: f64,
    /// When room was last requested.
    pub(super) used_at: Instant,
    logged_at: Option<Instant>,
    announced_at: Option<Instant>,
    unannounced: u64,
}

/// The answer to a request for room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There is room, and it is taken.
    Yes,
    /// The quota is full.
    Over(Over),
    /// Only Postgres can decide.
    Ask,
}

impl Ledger {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: Amount::default(),
            until: now,
            making: Amount::default(),
            over: None,
            fullness: 0.0,
            used_at: now,
            logged_at: None,
            announced_at: None,
            unannounced: 0,
        }
    }

    pub(super) fn take(&mut self, now: Instant, need: Amount) -> Taken {
        self.used_at = now;
        // If the limit on bytes is reached, a row without bytes may still fit.
        let counts = |over: &Over| need.bytes > 0 || !over.in_bytes;
        if let Some((over, _)) = self
            .over
            .as_ref()
            .filter(|(over, until)| now < *until && counts(over))
        {
            return Taken::Over(over.clone());
        }
        if now >= self.until || !need.fits(self.left) {
            return Taken::Ask;
        }
        self.left = self.left.less(need);
        self.making = self.making.plus(need);
        Taken::Yes
    }

    /// Gives up the rest of the grant while Postgres is asked. Returns the amount that is being
    /// made.
    pub(super) fn begin_to_ask(&mut self) -> Amount {
        self.left = Amount::default();
        self.making
    }

    /// Records a grant and takes `need` from it, however long the answer took.
    pub(super) fn granted(&mut self, asked_at: Instant, grant: Grant, need: Amount) {
        // Room that was given back meanwhile belongs to the amount that Postgres counted as being
        // made.
        self.left = self.left.plus(grant.amount).less(need);
        self.making = self.making.plus(need);
        self.until = asked_at + grant.lasts();
        if need.bytes > 0 || self.over.as_ref().is_some_and(|(over, _)| !over.in_bytes) {
            self.over = None;
        }
        self.fullness = grant.fullness;
    }

    /// Records that the quota is full. Returns whether that should be logged.
    pub(super) fn refused(&mut self, asked_at: Instant, now: Instant, over: Over) -> bool {
        let again_after = AGAIN_AFTER.max((now - asked_at) * AGAIN_AFTER_TIMES);
        self.over = Some((over, now + again_after));
        self.fullness = 1.0;
        let is_news = self
            .logged_at
            .is_none_or(|logged| now - logged >= LOGGED_EVERY);
        if is_news {
            self.logged_at = Some(now);
        }
        is_news
    }

    /// Returns the amount that was taken and is not known to be stored.
    pub(super) const fn making(&self) -> Amount {
        self.making
    }

    /// Records that a row is stored, where Postgres counts it.
    pub(super) fn stored(&mut self, amount: Amount) {
        self.making = self.making.less(amount);
    }

    /// Records that a row was not made.
    pub(super) fn given_back(&mut self, amount: Amount) {
        self.making = self.making.less(amount);
        self.left = self.left.plus(amount);
    }

    /// Records a refused message of which nothing is stored. If it should be announced now,
    /// returns the number of earlier ones that were not announced.
    pub(super) fn announces(&mut self, now: Instant) -> Option<u64> {
        if self
            .announced_at
            .is_some_and(|announced| now - announced < ANNOUNCED_EVERY)
        {
            self.unannounced += 1;
            return None;
        }
        self.announced_at = Some(now);
        Some(std::mem::take(&mut self.unannounced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Holder, Kind};

    const ROW: Amount = Amount::row(10);

    fn over() -> Over {
        Over {
            holder: Holder::Producer(None),
            kind: Kind::Open,
            in_bytes: false,
            limit: 3,
            wanted: 4,
        }
    }

    fn grant(rows: u64) -> Grant {
        Grant {
            amount: Amount {
                rows,
                bytes: rows * 10,
            },
            is_roomy: false,
            fullness: 0.5,
        }
    }

    #[test]
    fn a_grant_is_used_until_it_is_exhausted_or_expires() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        assert_eq!(ledger.take(now, ROW), Taken::Ask);
        ledger.granted(now, grant(3), ROW);
        assert_eq!(
            [
                ledger.take(now, ROW),
                ledger.take(now, ROW),
                ledger.take(now, ROW)
            ],
            [Taken::Yes, Taken::Yes, Taken::Ask]
        );
        assert_eq!(ledger.begin_to_ask(), Amount { rows: 3, bytes: 30 });
        ledger.granted(now, grant(2), ROW);
        assert_eq!(ledger.take(now + grant(2).lasts(), ROW), Taken::Ask);
    }

    #[test]
    fn nothing_is_taken_while_more_is_asked_for_and_what_is_given_back_meanwhile_is_not_lost() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        ledger.granted(now, grant(3), ROW);
        assert_eq!(ledger.begin_to_ask(), ROW);
        assert_eq!(ledger.take(now, ROW), Taken::Ask);
        ledger.given_back(ROW);
        ledger.granted(now, grant(1), ROW);
        assert_eq!(
            [ledger.take(now, ROW), ledger.take(now, ROW)],
            [Taken::Yes, Taken::Ask]
        );
        ledger.stored(ROW);
        assert_eq!(
            ledger.begin_to_ask(),
            ROW,
            "one is stored, the other is being made"
        );
    }

    #[test]
    fn a_full_quota_is_not_asked_about_again_at_once_and_later_the_longer_it_took() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        assert!(ledger.refused(now, now, over()), "the first time is logged");
        assert_eq!(
            ledger.take(now + Duration::from_millis(199), ROW),
            Taken::Over(over())
        );
        assert_eq!(
            ledger.take(now + Duration::from_millis(200), ROW),
            Taken::Ask
        );
        let answered = now + Duration::from_millis(100);
        assert!(
            !ledger.refused(now, answered, over()),
            "the second time is not"
        );
        assert_eq!(
            ledger.take(answered + Duration::from_millis(1999), ROW),
            Taken::Over(over())
        );
        assert_eq!(
            ledger.take(answered + Duration::from_millis(2000), ROW),
            Taken::Ask
        );
    }

    #[test]
    fn a_full_byte_quota_refuses_rows_with_bytes_and_asks_for_rows_without_any() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        ledger.refused(
            now,
            now,
            Over {
                in_bytes: true,
                ..over()
            },
        );
        assert_eq!(ledger.take(now, Amount::row(0)), Taken::Ask);
        ledger.granted(now, grant(3), Amount::row(0));
        assert_eq!(ledger.take(now, Amount::row(0)), Taken::Yes);
        assert!(matches!(ledger.take(now, ROW), Taken::Over(_)));
    }

    #[test]
    fn in_a_burst_of_refusals_one_per_second_is_announced_and_counts_the_others() {
        let now = Instant::now();
        let mut ledger = Ledger::new(now);
        let announced: Vec<_> = (0..2500_u64)
            .filter_map(|ms| ledger.announces(now + Duration::from_millis(ms)))
            .collect();
        assert_eq!(announced, [0, 999, 999]);
    }
}
