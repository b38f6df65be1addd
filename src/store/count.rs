//! Counts with an upper limit: a person does not need to know whether 30,000 or 31,000 jobs wait,
//! and counting all of them takes long.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

/// A count that stops at [`CappedCount::LIMIT`]. Above the limit it is displayed as `10,000+`; in
/// JSON, it is `{"n": 10000, "exact": false}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CappedCount(i64);

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
        Self(rows)
    }

    /// Returns the count, at most the limit.
    #[must_use]
    pub fn at_least(self) -> i64 {
        self.0.min(Self::LIMIT)
    }

    /// Subtracts rows; a count above the limit stays as it is.
    #[must_use]
    pub fn without(self, rows: usize) -> Self {
        if self.0 > Self::LIMIT {
            self
        } else {
            Self(
                self.0
                    .saturating_sub(i64::try_from(rows).unwrap_or(i64::MAX))
                    .max(0),
            )
        }
    }

    /// Returns whether the count is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for CappedCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > Self::LIMIT {
            f.write_str("10,000+")
        } else {
            self.0.fmt(f)
        }
    }
}

impl Serialize for CappedCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Counted {
            n: self.at_least(),
            exact: self.0 <= Self::LIMIT,
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
