//! The share of a quota that a replica may use.

use std::fmt;
use std::time::Duration;

use super::{Amount, Amounts, Holder, Kind};

/// A quota that a message would exceed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    pub holder: Holder,
    pub kind: Kind,
    /// Whether bytes exceed the quota; otherwise rows do.
    pub in_bytes: bool,
    /// The quota.
    pub limit: u64,
    /// The usage including the message.
    pub wanted: u64,
}

impl std::error::Error for Over {}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            holder,
            kind,
            in_bytes,
            limit,
            wanted,
        } = self;
        let (what, remedy) = kind.described();
        let unit = if *in_bytes { " bytes in" } else { "" };
        write!(
            f,
            "expected at most {limit}{unit} {what} {holder}, got {wanted} with this one; use {remedy}"
        )
    }
}

/// The state of a quota when a replica asks for a grant.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub holder: &'a Holder,
    /// The quotas.
    pub limits: &'a Amounts,
    /// The counted usage.
    pub used: Amounts,
    /// The amount that other replicas may still write and that this replica is writing.
    pub promised: Amounts,
    /// Number of running replicas.
    pub replicas: u32,
    /// The minimum amount that must fit.
    pub need: Amount,
}

/// The amount that a replica may write until it asks again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grant {
    /// At least what the replica needs.
    pub amount: Amount,
    /// Whether more than half of the quota is free.
    pub is_roomy: bool,
    /// The used part of the quota: 1 is all of it.
    pub fullness: f64,
}

impl Grant {
    /// Returns how long the grant lasts. If little of the quota is free, the part that one replica
    /// does not use soon becomes available to the others.
    #[must_use]
    pub const fn lasts(self) -> Duration {
        Duration::from_secs(if self.is_roomy { 60 } else { 2 })
    }
}

impl Asked<'_> {
    /// Grants a share of the free part of a quota. The share is so small that half of the free
    /// part is left when all replicas have asked: a replica that asks again, or has just started,
    /// gets some of it.
    ///
    /// # Errors
    /// [`Over`] if less is free than the replica needs.
    pub fn grant(&self, kind: Kind) -> Result<Grant, Over> {
        let checks = self.checks(kind);
        for (kind, taken) in &checks {
            self.check(*kind, *taken)?;
        }
        // A job for later uses none of the open quota yet; it is enough that there is some left.
        let bounding = if kind == Kind::Later {
            &checks[..1]
        } else {
            &checks[..]
        };
        let rooms = bounding
            .iter()
            .map(|(kind, taken)| (self.limits.of(*kind), self.limits.of(*kind).less(*taken)));
        let is_roomy = rooms
            .clone()
            .all(|(limit, room)| room.rows > limit.rows / 2 && room.bytes > limit.bytes / 2);
        let room = rooms
            .map(|(_, room)| room)
            .reduce(|one, other| one.each(other, u64::min))
            .unwrap_or_default();
        let parts = 2 * (u64::from(self.replicas.max(1)) + 1);
        let share = Amount {
            rows: room.rows / parts,
            bytes: room.bytes / parts,
        };
        let fullness = bounding
            .iter()
            .map(|(kind, taken)| fullness(*taken, self.limits.of(*kind)))
            .fold(0.0, f64::max);
        Ok(Grant {
            amount: share.each(self.need, u64::max),
            is_roomy,
            fullness,
        })
    }

    /// Returns the quotas that a new row of this kind counts towards, its own first, each with the
    /// used part. An open job may wait or be parked later, so it counts towards that quota, too,
    /// and no job exceeds it later. A job for later becomes open.
    fn checks(&self, kind: Kind) -> Vec<(Kind, Amount)> {
        let taken = |kind| self.used.of(kind).plus(self.promised.of(kind));
        let open = [
            (Kind::Open, taken(Kind::Open)),
            (Kind::Waiting, self.used.waiting.plus(taken(Kind::Open))),
        ];
        match kind {
            Kind::Open | Kind::Waiting => open.to_vec(),
            Kind::Later => [(kind, taken(kind))].into_iter().chain(open).collect(),
            Kind::DeadLetters | Kind::Keys => vec![(kind, taken(kind))],
        }
    }

    fn check(&self, kind: Kind, taken: Amount) -> Result<(), Over> {
        let (limit, wanted) = (self.limits.of(kind), taken.plus(self.need));
        let over = |in_bytes, limit, wanted| Over {
            holder: self.holder.clone(),
            kind,
            in_bytes,
            limit,
            wanted,
        };
        if wanted.rows > limit.rows {
            return Err(over(false, limit.rows, wanted.rows));
        }
        if wanted.bytes > limit.bytes {
            return Err(over(true, limit.bytes, wanted.bytes));
        }
        Ok(())
    }
}

/// Returns the used part of a quota, in rows or bytes, whichever is larger: 1 is all of it.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a share of a quota")]
pub fn fullness(used: Amount, limit: Amount) -> f64 {
    let share = |used: u64, limit: u64| {
        if limit == 0 {
            1.0
        } else {
            used as f64 / limit as f64
        }
    };
    share(used.rows, limit.rows).max(share(used.bytes, limit.bytes))
}
