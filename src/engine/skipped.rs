//! Counts of what a stage skipped, so that a job that did little shows why.

use std::collections::BTreeMap;

use crate::fault::storable;

/// Counts by kind (`events`, `work_items`) and reason (`duplicate`). Kinds and reasons are stored
/// and published: never renamed.
pub type Skipped = BTreeMap<&'static str, BTreeMap<String, u32>>;

/// The most reasons of one kind.
const REASONS: usize = 32;
/// The longest reason, in bytes.
const REASON_BYTES: usize = 64;
/// The reason that stands for all those for which there is no room.
const OTHER: &str = "other";

/// Returns `counts` within the limits and without zeros.
pub(super) fn bounded(counts: BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let named = if counts.len() > REASONS {
        REASONS - 1
    } else {
        REASONS
    };
    let mut kept = BTreeMap::new();
    for (reason, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        let reason = storable(&reason, REASON_BYTES);
        let has_room = kept.len() < named || kept.contains_key(&reason);
        let sum: &mut u32 = kept
            .entry(if has_room { reason } else { OTHER.to_owned() })
            .or_default();
        *sum = sum.saturating_add(count);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_few_and_short_and_no_count_is_lost() {
        let many: BTreeMap<String, u32> = (0..100)
            .map(|n| (format!("{n:03}{}", "é".repeat(100)), 1))
            .collect();
        let kept = bounded(many);
        assert_eq!(
            (kept.len(), kept[OTHER], kept.values().sum::<u32>()),
            (REASONS, 69, 100)
        );
        assert!(kept.keys().all(|reason| reason.len() <= REASON_BYTES));
        let all: BTreeMap<String, u32> = (0..32).map(|n| (format!("{n}"), n + 1)).collect();
        assert_eq!(bounded(all.clone()), all);
    }

    #[test]
    fn reasons_that_are_alike_once_cut_are_added_up_and_zeros_are_left_out() {
        let long = "x".repeat(REASON_BYTES);
        let counts = BTreeMap::from([
            (format!("{long}1"), 2),
            (format!("{long}2"), u32::MAX),
            ("none".to_owned(), 0),
        ]);
        assert_eq!(bounded(counts), BTreeMap::from([(long, u32::MAX)]));
    }
}
