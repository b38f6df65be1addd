//! Counts with an upper limit: a person does not need to know whether 30,000 or 31,000 jobs wait,
//! and counting all of them takes long.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

/// A count that stops at [`CappedCount::LIMIT`], or where not every row was looked at. It is
/// displayed as `10,000+` or `12+` then; in JSON, it is `{"n": 12, "exact": false}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CappedCount {
    n: i64,
    is_exact: bool,
}

impl Default for CappedCount {
    fn default() -> Self {
        Self::of(0)
    }
}

/// A count in JSON.
#[derive(Serialize, JsonSchema)]
struct Counted {
    /// The count, at most 10,000.
    n: i64,
    /// Whether there are not more.
    exact: bool,
}

impl CappedCount {
    /// The largest count that is exact.
    pub const LIMIT: i64 = 10_000;
    /// Rows that a statement counts: one more than the limit shows that there are more.
    pub(super) const ROWS: i64 = Self::LIMIT + 1;

    /// Creates a count from a number of rows, of which at most one more than the limit was
    /// counted.
    #[must_use]
    pub const fn of(rows: i64) -> Self {
        if rows > Self::LIMIT {
            Self::or_more(rows)
        } else {
            Self {
                n: rows,
                is_exact: true,
            }
        }
    }

    /// Creates a count of which it is not known whether it is complete: not every row was looked
    /// at.
    #[must_use]
    pub const fn or_more(rows: i64) -> Self {
        Self {
            n: if rows > Self::LIMIT {
                Self::LIMIT
            } else {
                rows
            },
            is_exact: false,
        }
    }

    /// As [`CappedCount::of`] if every row was looked at, and [`CappedCount::or_more`] otherwise.
    #[must_use]
    pub const fn among(rows: i64, is_complete: bool) -> Self {
        if is_complete {
            Self::of(rows)
        } else {
            Self::or_more(rows)
        }
    }

    /// Returns the count, at most the limit.
    #[must_use]
    pub const fn at_least(self) -> i64 {
        self.n
    }

    /// Subtracts rows; a count that is not exact stays as it is.
    #[must_use]
    pub fn without(self, rows: usize) -> Self {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        if self.is_exact {
            Self::of(self.n.saturating_sub(rows).max(0))
        } else {
            self
        }
    }

    /// Returns whether the count is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.n == 0
    }
}

impl fmt::Display for CappedCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_exact, self.n) {
            (true, n) => n.fmt(f),
            (false, Self::LIMIT) => f.write_str("10,000+"),
            (false, n) => write!(f, "{n}+"),
        }
    }
}

impl Serialize for CappedCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Counted {
            n: self.n,
            exact: self.is_exact,
        }
        .serialize(serializer)
    }
}

impl JsonSchema for CappedCount {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Counted::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_exact_up_to_its_limit() {
        for (rows, text, json) in [
            (0, "0", r#"{"n":0,"exact":true}"#),
            (10_000, "10000", r#"{"n":10000,"exact":true}"#),
            (10_001, "10,000+", r#"{"n":10000,"exact":false}"#),
        ] {
            let count = CappedCount::of(rows);
            assert_eq!(
                (
                    count.to_string().as_str(),
                    serde_json::to_string(&count).unwrap().as_str()
                ),
                (text, json)
            );
        }
    }
}
