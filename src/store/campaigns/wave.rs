//! The waves of a campaign: their sizes and verdicts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A later wave has as many items as are acted on in this many seconds.
const SECONDS: i32 = 10;

/// A wave, and what became of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wave {
    /// Its number, from 1.
    pub wave: i32,
    /// Its last item.
    pub until: i32,
    /// Items whose stage is done, or whose job is.
    pub good: i64,
    /// Items whose job is parked again.
    pub bad: i64,
    /// Items without a result within a minute.
    pub unknown: i64,
    /// Items whose job could not be acted on.
    pub refused: i64,
}

impl Wave {
    /// Returns the number of items whose job was acted on.
    pub(super) const fn acted(&self) -> i64 {
        self.good + self.bad + self.unknown
    }

    /// Returns why the campaign must pause, if more than `percent` of the wave have failed again.
    pub(super) fn stops_at(&self, percent: i32) -> Option<String> {
        let acted = self.acted();
        (self.bad * 100 > i64::from(percent) * acted).then(|| {
            format!(
                "wave {}: {} of {acted} jobs were parked again, which is more than {percent} %; remove the cause, then use \
                 `dispatch campaigns resume`, or abort it",
                self.wave, self.bad
            )
        })
    }
}

/// Returns the number of items of the wave that follows `ramp` successful ones.
pub(super) const fn size(ramp: i32, per_second: i32) -> i32 {
    match ramp {
        0 => 1,
        1 => 10,
        _ => per_second * SECONDS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_grow_from_one_item_to_ten_seconds_of_the_rate() {
        assert_eq!([0, 1, 2, 9].map(|ramp| size(ramp, 5)), [1, 10, 50, 50]);
    }

    #[test]
    fn a_wave_stops_the_campaign_when_more_than_the_limit_has_failed_again() {
        let wave = |good, bad, unknown| Wave {
            wave: 2,
            until: 11,
            good,
            bad,
            unknown,
            refused: 90,
        };
        assert!(wave(0, 1, 0).stops_at(20).is_some());
        assert_eq!(wave(8, 2, 0).stops_at(20), None);
        assert!(wave(7, 3, 0).stops_at(20).unwrap().contains("3 of 10"));
        assert_eq!(wave(0, 0, 10).stops_at(20), None);
        assert_eq!(wave(0, 0, 0).stops_at(0), None);
        assert_eq!(wave(0, 10, 0).stops_at(100), None);
    }
}
