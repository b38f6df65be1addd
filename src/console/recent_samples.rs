//! The samples of the last hour, kept between readings: a sample never changes, so only those of the
//! last minutes are read again.

use std::collections::{BTreeMap, BTreeSet};

use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;

use super::panels::AN_HOUR;
use crate::store::{Charts, SampleRow, Store, StoreError};

/// Samples of this time are read again, by minutes: one that was being stored may have been missed.
const AGAIN: Duration = Duration::MINUTE;
/// Maximum number of samples that are kept, as many as one reading returns.
const KEPT: usize = 6_000;

/// The samples of the last hour.
#[derive(Default)]
pub(super) struct RecentSamples {
    /// The oldest first.
    kept: Mutex<Vec<SampleRow>>,
}

impl RecentSamples {
    /// Returns the charts of the last hour.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) async fn charts(&self, store: &Store) -> Result<Charts, StoreError> {
        let now = store.now().await?;
        let since = now - AN_HOUR;
        // A counter begins with the second sample, so one more step is needed.
        let from = since - Duration::MINUTE;
        let mut kept = self.kept.lock().await;
        // Another server's clock may be behind: then all is read again.
        if kept.last().is_some_and(|newest| newest.at > now) {
            kept.clear();
        }
        let again = again(&kept, from);
        let fresh = store.samples(again).await?;
        join(&mut kept, fresh, from, again);
        Ok(Charts::of(&kept, since, now))
    }
}

/// Returns the beginning of the first minute that is read.
fn again(kept: &[SampleRow], from: OffsetDateTime) -> OffsetDateTime {
    let Some(newest) = kept.last() else {
        return from;
    };
    let began = OffsetDateTime::from_unix_timestamp(minute(newest) * 60);
    (began.unwrap_or(newest.at) - AGAIN).max(from)
}

fn minute(sample: &SampleRow) -> i64 {
    sample.at.unix_timestamp().div_euclid(60)
}

/// Replaces what was kept of the time that was read again.
fn join(
    kept: &mut Vec<SampleRow>,
    fresh: Vec<SampleRow>,
    from: OffsetDateTime,
    again: OffsetDateTime,
) {
    kept.retain(|sample| sample.at >= from && sample.at < again);
    let last: BTreeMap<(i64, i64), OffsetDateTime> = fresh
        .iter()
        .map(|sample| ((sample.replica, minute(sample)), sample.at))
        .collect();
    let mut known: BTreeSet<i64> = kept.iter().map(|sample| sample.replica).collect();
    // A reading begins with the first sample of each replica, which is wanted of a new one only.
    kept.extend(fresh.into_iter().filter(|sample| {
        let is_first = known.insert(sample.replica);
        is_first || last.get(&(sample.replica, minute(sample))) == Some(&sample.at)
    }));
    let superfluous = kept.len().saturating_sub(KEPT);
    kept.drain(..superfluous);
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::store::SampleData;

    const FROM: OffsetDateTime = datetime!(2026-01-01 12:00:00 UTC);

    /// A sample every 15 s.
    fn sample(number: i64) -> SampleRow {
        let accepted = r#"dispatch_accepted_total{source="shop"}"#.to_owned();
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let (count, gauge) = ((number * number) as f64, (number * 7 % 11) as f64);
        SampleRow {
            at: FROM + Duration::seconds(7 + number * 15),
            replica: 1,
            data: SampleData {
                counters: [(accepted, count)].into(),
                gauges: [(
                    r#"dispatch_oldest_due_seconds{lane="dispatch"}"#.to_owned(),
                    gauge,
                )]
                .into(),
                ..SampleData::default()
            },
        }
    }

    /// What [`Store::samples`] returns: the first sample, and the last one of each minute.
    fn read(since: OffsetDateTime, until: i64) -> Vec<SampleRow> {
        let all: Vec<SampleRow> = (0..until)
            .map(sample)
            .filter(|row| row.at >= since)
            .collect();
        let is_wanted = |at: usize| {
            at == 0
                || all
                    .get(at + 1)
                    .is_none_or(|next| minute(next) != minute(&all[at]))
        };
        let wanted: Vec<usize> = (0..all.len()).filter(|at| is_wanted(*at)).collect();
        wanted.into_iter().map(|at| all[at].clone()).collect()
    }

    #[test]
    fn what_is_kept_makes_the_same_charts_as_what_is_read_as_a_whole() {
        let mut kept = Vec::new();
        let mut few = 0;
        for until in (1..400).step_by(3) {
            let now = FROM + Duration::seconds(until * 15);
            let since = now - AN_HOUR;
            let from = since - Duration::MINUTE;
            let again = again(&kept, from);
            let fresh = read(again, until);
            few += usize::from(fresh.len() <= 5);
            join(&mut kept, fresh, from, again);
            let whole = Charts::of(&read(from, until), since, now);
            assert_eq!(Charts::of(&kept, since, now), whole, "{until}");
            assert!(kept.len() <= 63, "{}", kept.len());
        }
        assert!(few > 120, "{few}");
    }

    #[test]
    fn no_more_is_kept_than_one_reading_returns() {
        let each_minute = |minute: i64| sample(4 * minute);
        let mut kept: Vec<SampleRow> = (0..10).map(each_minute).collect();
        let fresh = (10..6_005).map(each_minute).collect();
        join(&mut kept, fresh, FROM, each_minute(10).at);
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept.first(), Some(&each_minute(5)));
    }
}
