//! Quotas: how much of Postgres a producer or an organization may use. Kinds, limits, and the
//! computation of grants. Pure.

mod setting;
mod share;
#[cfg(test)]
mod tests;

use std::fmt;

pub use setting::{
    BadQuota, ORGANIZATION_QUOTAS, PRODUCER_QUOTAS, organization_quotas, producer_quotas,
};
pub use share::{Asked, Grant, Over, fullness};

/// Kind of rows that a quota limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Jobs and follow-ups that are ready or running.
    Open,
    /// Jobs that were never claimed and whose `not_before` is in the future.
    Later,
    /// Jobs that wait or are parked.
    Waiting,
    /// Open dead letters.
    DeadLetters,
    /// Cancels that arrived before their job.
    Keys,
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Open,
        Self::Later,
        Self::Waiting,
        Self::DeadLetters,
        Self::Keys,
    ];

    /// Returns the word that is stored and used in settings and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Later => "later",
            Self::Waiting => "waiting",
            Self::DeadLetters => "dead_letters",
            Self::Keys => "keys",
        }
    }

    /// Returns the name for messages, and what helps if the quota is exceeded.
    const fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Open => (
                "open jobs",
                "a lower rate, and publish it again when jobs have finished",
            ),
            Self::Later => (
                "jobs for later",
                "fewer jobs with `not_before`, and publish it again when some of them have run",
            ),
            Self::Waiting => (
                "jobs that wait, are parked, or may do so later",
                "`dispatch jobs list --state parked` to see what they need, and publish it again",
            ),
            Self::DeadLetters => (
                "open dead letters",
                "`dispatch dead-letters replay` or `discard`",
            ),
            Self::Keys => (
                "cancels without a job",
                "cancels of jobs that were published",
            ),
        }
    }
}

/// A number of rows and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Amount {
    pub rows: u64,
    /// Bytes of the received messages.
    pub bytes: u64,
}

impl Amount {
    /// An amount that no holder can reach.
    pub const UNLIMITED: Self = Self {
        rows: 1 << 50,
        bytes: 1 << 50,
    };

    /// Returns one row of this many bytes.
    #[must_use]
    pub const fn row(bytes: u64) -> Self {
        Self { rows: 1, bytes }
    }

    /// Returns the sum.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_add(other.rows),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Returns the difference; not less than zero.
    #[must_use]
    pub const fn less(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(other.rows),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Returns whether neither rows nor bytes exceed those of `room`.
    #[must_use]
    pub const fn fits(self, room: Self) -> bool {
        self.rows <= room.rows && self.bytes <= room.bytes
    }

    fn each(self, other: Self, of: fn(u64, u64) -> u64) -> Self {
        Self {
            rows: of(self.rows, other.rows),
            bytes: of(self.bytes, other.bytes),
        }
    }
}

/// An amount of each kind: a limit or a usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Amounts {
    /// See [`Kind::Open`].
    pub open: Amount,
    /// See [`Kind::Later`].
    pub later: Amount,
    /// See [`Kind::Waiting`].
    pub waiting: Amount,
    /// See [`Kind::DeadLetters`].
    pub dead_letters: Amount,
    /// See [`Kind::Keys`].
    pub keys: Amount,
}

impl Amounts {
    #[must_use]
    pub const fn of(&self, kind: Kind) -> Amount {
        match kind {
            Kind::Open => self.open,
            Kind::Later => self.later,
            Kind::Waiting => self.waiting,
            Kind::DeadLetters => self.dead_letters,
            Kind::Keys => self.keys,
        }
    }

    /// Returns the amount of one kind, mutable.
    pub const fn of_mut(&mut self, kind: Kind) -> &mut Amount {
        match kind {
            Kind::Open => &mut self.open,
            Kind::Later => &mut self.later,
            Kind::Waiting => &mut self.waiting,
            Kind::DeadLetters => &mut self.dead_letters,
            Kind::Keys => &mut self.keys,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A producer; `None` for all messages without a producer together.
    Producer(Option<String>),
    /// An organization.
    Organization(String),
}

impl Holder {
    /// Returns the key that is stored.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Producer(Some(name)) => format!("producer/{name}"),
            Self::Producer(None) => "producer".to_owned(),
            Self::Organization(name) => format!("organization/{name}"),
        }
    }

    /// Returns the word that is used in metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Producer(_) => "producer",
            Self::Organization(_) => "organization",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer(Some(name)) => write!(f, "of producer {name:?}"),
            Self::Producer(None) => write!(f, "of messages without a producer"),
            Self::Organization(name) => write!(f, "of organization {name:?}"),
        }
    }
}
