//! What a replica may make of the room that a quota leaves.

use std::fmt;
use std::time::Duration;

use super::{Amount, Amounts, Holder, Kind};

/// A quota that a message does not fit into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    /// Whose.
    pub holder: Holder,
    /// Of what.
    pub kind: Kind,
    /// Of bytes; otherwise of rows.
    pub in_bytes: bool,
    /// The quota.
    pub limit: u64,
    /// What there would be with the message.
    pub wanted: u64,
}

impl std::error::Error for Over {}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holder, kind, in_bytes, limit, wanted } = self;
        let (what, remedy) = kind.described();
        let unit = if *in_bytes { " bytes in" } else { "" };
        write!(f, "expected at most {limit}{unit} {what} {holder}, got {wanted} with this one; use {remedy}")
    }
}

/// What there is when a replica asks for more.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Whose quota it is.
    pub holder: &'a Holder,
    /// The quotas.
    pub limits: &'a Amounts,
    /// As counted.
    pub used: Amounts,
    /// What others may still make, and what this replica is making.
    pub promised: Amounts,
    /// Replicas that run.
    pub replicas: u32,
    /// What must fit at least.
    pub need: Amount,
}

/// What a replica may make until it asks again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grant {
    /// At least what it needs.
    pub amount: Amount,
    /// There is far more room than that.
    pub is_roomy: bool,
    /// How much of the quota is taken: 1 is all of it.
    pub fullness: f64,
}

impl Grant {
    /// How long it is good for. Where there is little room, what one replica does not use is soon of use to the others.
    #[must_use]
    pub const fn lasts(self) -> Duration {
        Duration::from_secs(if self.is_roomy { 60 } else { 2 })
    }
}

impl Asked<'_> {
    /// A share of the room that is left. Each replica is promised so little of it that half is left when all have asked: one that
    /// asks again, or has just started, finds some.
    ///
    /// # Errors
    /// [`Over`]: there is too little room for what is needed.
    pub fn grant(&self, kind: Kind) -> Result<Grant, Over> {
        let checks = self.checks(kind);
        for (kind, taken) in &checks {
            self.check(*kind, *taken)?;
        }
        // A job for later needs no room among the open ones yet, beyond that there is some.
        let bounding = if kind == Kind::Later { &checks[..1] } else { &checks[..] };
        let rooms = bounding.iter().map(|(kind, taken)| (self.limits.of(*kind), self.limits.of(*kind).less(*taken)));
        let is_roomy = rooms.clone().all(|(limit, room)| room.rows > limit.rows / 2 && room.bytes > limit.bytes / 2);
        let room = rooms.map(|(_, room)| room).reduce(|one, other| one.each(other, u64::min)).unwrap_or_default();
        let parts = 2 * (u64::from(self.replicas.max(1)) + 1);
        let share = Amount { rows: room.rows / parts, bytes: room.bytes / parts };
        let fullness = bounding.iter().map(|(kind, taken)| fullness(*taken, self.limits.of(*kind))).fold(0.0, f64::max);
        Ok(Grant { amount: share.each(self.need, u64::max), is_roomy, fullness })
    }

    /// The quotas that a new row of this kind counts for, its own first, with what is taken of each. An open job may come to wait
    /// or be parked: it takes room there, too, so that no job exceeds that quota later. One for later comes to be open.
    fn checks(&self, kind: Kind) -> Vec<(Kind, Amount)> {
        let taken = |kind| self.used.of(kind).plus(self.promised.of(kind));
        let open = [(Kind::Open, taken(Kind::Open)), (Kind::Waiting, self.used.waiting.plus(taken(Kind::Open)))];
        match kind {
            Kind::Open | Kind::Waiting => open.to_vec(),
            Kind::Later => [(kind, taken(kind))].into_iter().chain(open).collect(),
            Kind::DeadLetters | Kind::Keys => vec![(kind, taken(kind))],
        }
    }

    fn check(&self, kind: Kind, taken: Amount) -> Result<(), Over> {
        let (limit, wanted) = (self.limits.of(kind), taken.plus(self.need));
        let over = |in_bytes, limit, wanted| Over { holder: self.holder.clone(), kind, in_bytes, limit, wanted };
        if wanted.rows > limit.rows {
            return Err(over(false, limit.rows, wanted.rows));
        }
        if wanted.bytes > limit.bytes {
            return Err(over(true, limit.bytes, wanted.bytes));
        }
        Ok(())
    }
}

/// What of its quotas a holder uses, in the fullest kind: 1 is all of it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a share of a quota")]
pub fn fullness(used: Amount, limit: Amount) -> f64 {
    let share = |used: u64, limit: u64| if limit == 0 { 1.0 } else { used as f64 / limit as f64 };
    share(used.rows, limit.rows).max(share(used.bytes, limit.bytes))
}
