//! Counts for people, up to a limit: nobody needs to know whether 30,000 jobs wait or 31,000, and counting them all takes long.

use std::fmt;

use serde::{Serialize, Serializer};

/// A count that stops at [`CappedCount::LIMIT`]. People read `10,000+` where there are more; JSON has the limit itself then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CappedCount(i64);

impl CappedCount {
    /// The largest count that is exact.
    pub const LIMIT: i64 = 10_000;
    /// Rows that a statement counts: one more says that there are more.
    pub(super) const ROWS: i64 = Self::LIMIT + 1;

    /// Of as many rows, of which at most one more than the limit were counted.
    #[must_use]
    pub const fn of(rows: i64) -> Self {
        Self(rows)
    }

    /// At most the limit.
    #[must_use]
    pub fn at_least(self) -> i64 {
        self.0.min(Self::LIMIT)
    }

    /// What is left of as many without so many of them; one that has stopped at the limit stays.
    #[must_use]
    pub fn without(self, rows: usize) -> Self {
        if self.0 > Self::LIMIT { self } else { Self(self.0.saturating_sub(i64::try_from(rows).unwrap_or(i64::MAX)).max(0)) }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for CappedCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > Self::LIMIT { f.write_str("10,000+") } else { self.0.fmt(f) }
    }
}

impl Serialize for CappedCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.at_least().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_exact_up_to_its_limit() {
        for (rows, text, json) in [(0, "0", "0"), (10_000, "10000", "10000"), (10_001, "10,000+", "10000")] {
            let count = CappedCount::of(rows);
            assert_eq!((count.to_string().as_str(), serde_json::to_string(&count).unwrap().as_str()), (text, json));
        }
    }
}
