//! Durations on the command line.

use std::time::Duration;

pub(super) use crate::store::parse_age as parse;

/// The longest control, in seconds, so that a forgotten one ends.
const LONGEST_CONTROL: u64 = 7 * 86_400;

/// Parses the length of a hold, a pause or a kill switch.
pub(super) fn of_control(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let unit = units
        .iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
    let seconds =
        unit.and_then(|(number, seconds)| number.parse::<u64>().ok()?.checked_mul(seconds));
    let seconds = seconds.filter(|seconds| (1..=LONGEST_CONTROL).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        "expected a number and s, m, h or d, at most a week; use 90s or 1h for example".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_lasts_a_number_of_a_unit_up_to_a_week() {
        assert_eq!(
            ["90s", "10m", "2h", "7d"].map(|text| of_control(text).unwrap().as_secs()),
            [90, 600, 7200, 604_800]
        );
        for wrong in [
            "",
            "90",
            "h",
            "-1h",
            "0s",
            "8d",
            "1w",
            "99999999999999999999d",
            "1 h",
        ] {
            assert!(of_control(wrong).unwrap_err().contains("90s"), "{wrong}");
        }
    }
}
