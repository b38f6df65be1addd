//! Durations on the command line.

use std::time::Duration;

/// The longest duration, in days.
const LONGEST_DAYS: u64 = 90;

/// Parses `90s`, `15m`, `24h` or `7d`, at most 90 days.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
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
    fn a_number_and_a_unit_is_a_length_of_time_and_nothing_else_is() {
        let seconds = |text| parse(text).map(|length| length.as_secs());
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
