//! When a list begins, as people write it.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The longest age, in days.
const LONGEST_DAYS: u64 = 90;

/// When a list begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// This long ago: `2h`.
    Ago(Duration),
    /// At this time: `2026-11-29T14:00:00Z`.
    At(OffsetDateTime),
}

/// A text that is neither an age nor a time.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected an age up to {LONGEST_DAYS}d or a time of RFC 3339, got `{0}`; use 30m, 2h, 3d or 2026-11-29T14:00:00Z"
)]
pub struct InvalidSince(String);

impl Since {
    /// Returns the time, if it is `now`.
    #[must_use]
    pub fn at(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::Ago(age) => now - age,
            Self::At(at) => at,
        }
    }
}

impl FromStr for Since {
    type Err = InvalidSince;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(age) = parse_age(text) {
            return Ok(Self::Ago(age));
        }
        // Years that only some time zones have cannot be given to Postgres.
        let at = OffsetDateTime::parse(text, &Rfc3339).ok();
        at.filter(|at| (1..=9998).contains(&at.year()))
            .map(Self::At)
            .ok_or_else(|| InvalidSince(text.chars().take(64).collect()))
    }
}

impl<'de> Deserialize<'de> for Since {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Parses `90s`, `15m`, `24h` or `7d`, at most 90 days.
///
/// # Errors
/// What is expected.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let right = || {
        format!("expected a number and a unit, {LONGEST_DAYS}d at most; use 90s, 15m, 24h or 7d")
    };
    let unit = text.chars().last().ok_or_else(right)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(right()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| right())?;
    let length = number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(right)?;
    if length > Duration::from_secs(LONGEST_DAYS * 86_400) {
        Err(right())
    } else {
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_number_and_a_unit_is_a_length_of_time_and_nothing_else_is() {
        let seconds = |text| parse_age(text).map(|length| length.as_secs());
        assert_eq!(
            [
                seconds("90s"),
                seconds("15m"),
                seconds("24h"),
                seconds("90d")
            ],
            [Ok(90), Ok(900), Ok(86_400), Ok(7_776_000)]
        );
        for wrong in [
            "",
            "24",
            "h",
            "-1h",
            "1w",
            "1.5h",
            "91d",
            "99999999999999999999d",
            "1é",
        ] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_begins_some_time_ago_or_at_a_time() {
        let now = datetime!(2026-11-29 14:30 UTC);
        let at = |text: &str| text.parse().map(|since: Since| since.at(now)).ok();
        let today = datetime!(2026-11-29 12:30 UTC);
        assert_eq!(at("2h"), Some(today));
        assert_eq!(at("30m"), Some(datetime!(2026-11-29 14:00 UTC)));
        assert_eq!(at("2026-11-29T13:30:00+01:00"), Some(today));
        for wrong in [
            "",
            "2",
            "2 h",
            "yesterday",
            "2026-11-29",
            "2026-02-30T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
        ] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
