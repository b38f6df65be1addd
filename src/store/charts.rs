//! Charts of the last while, from the samples of the replicas: what came in, what was done, what
//! failed, how long due jobs have waited, and how long stages take.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::samples::{SampleData, SampleRow};
use super::series::{label, series};
use crate::telemetry::names;

/// The length of a point, in seconds: [`Store::samples`](super::Store::samples) returns one sample
/// of each replica for each.
pub const STEP: i64 = 60;
/// Most points: those of two days, the age at which samples are deleted.
const POINTS: usize = 48 * 60 + 1;
/// Most stages that are listed, the slowest first.
const STAGES: usize = 50;

/// Charts, point by point.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Charts {
    /// The time of the first point.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub from: OffsetDateTime,
    /// The length of each point, in seconds.
    pub step_seconds: i64,
    /// The points, one for each step, the oldest first.
    pub points: Vec<ChartPoint>,
    /// The durations of stages over all points, the slowest first.
    pub stages: Vec<StageTimes>,
}

/// What happened within one step. A counter begins with the second sample of a replica.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ChartPoint {
    /// When the step began.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub at: OffsetDateTime,
    /// Replicas that stored a sample in the step. With none, nothing else is known.
    pub replicas: u32,
    /// Jobs made of messages.
    pub accepted: f64,
    /// Jobs that succeeded or were cancelled by a run.
    pub done: f64,
    /// Jobs that were parked.
    pub parked: f64,
    /// Attempts that did not succeed.
    pub failed_attempts: f64,
    /// How long the oldest due job had been due, in seconds.
    pub oldest_due_seconds: f64,
    /// Jobs that were ready, due or not; of each lane at most 10,001.
    pub ready: f64,
    /// Messages in the queues of RabbitMQ that no consumer had received.
    pub queued: f64,
    /// The time within which 95 % of the stages that ran were done, in seconds: an upper limit,
    /// because durations are counted in buckets. `None` if no stage ran.
    pub stage_p95_seconds: Option<f64>,
}

/// The durations of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StageTimes {
    /// `pipeline/stage`.
    pub stage: String,
    /// How often it ran.
    pub runs: u64,
    /// See [`ChartPoint::stage_p95_seconds`].
    pub p95_seconds: f64,
}

/// Counts of runs by bucket, as in [`SampleData::stages`].
type Buckets = Vec<u64>;

/// What is added up for a point.
#[derive(Default)]
struct Sums {
    replicas: BTreeSet<i64>,
    accepted: f64,
    done: f64,
    parked: f64,
    failed_attempts: f64,
    oldest_due: f64,
    ready: f64,
    queued: f64,
    runs: Buckets,
}

impl Charts {
    /// Makes charts of samples, the oldest first, from `from` to `until`. Samples outside are
    /// ignored.
    #[must_use]
    pub fn of(samples: &[SampleRow], from: OffsetDateTime, until: OffsetDateTime) -> Self {
        let begin = from.unix_timestamp().div_euclid(STEP) * STEP;
        let steps = (until.unix_timestamp() - begin).div_euclid(STEP) + 1;
        let steps = usize::try_from(steps).unwrap_or(0).min(POINTS);
        let mut sums: Vec<Sums> = (0..steps).map(|_| Sums::default()).collect();
        let mut last: BTreeMap<i64, &SampleData> = BTreeMap::new();
        let mut stages: BTreeMap<&str, Buckets> = BTreeMap::new();
        for sample in samples {
            let before = last.insert(sample.replica, &sample.data);
            let at = (sample.at.unix_timestamp() - begin).div_euclid(STEP);
            let Some(sums) = usize::try_from(at).ok().and_then(|at| sums.get_mut(at)) else {
                continue;
            };
            sums.gauges(sample.replica, &sample.data);
            if let Some(before) = before {
                sums.counters(before, &sample.data);
                for (stage, now) in &sample.data.stages {
                    let runs = runs_since(before.stages.get(stage), now);
                    add(&mut sums.runs, &runs);
                    add(stages.entry(stage).or_default(), &runs);
                }
            }
        }
        let at = |step: usize| {
            let seconds = begin + i64::try_from(step).unwrap_or_default() * STEP;
            OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(from)
        };
        Self {
            from: at(0),
            step_seconds: STEP,
            points: sums
                .iter()
                .enumerate()
                .map(|(step, sums)| sums.point(at(step)))
                .collect(),
            stages: stage_times(&stages),
        }
    }
}

impl Sums {
    /// Every replica measures the same rows and queues, so the largest value counts.
    fn gauges(&mut self, replica: i64, sample: &SampleData) {
        self.replicas.insert(replica);
        let largest = |metric| {
            series(&sample.gauges, metric)
                .map(|(_, _, value)| value)
                .fold(0.0, f64::max)
        };
        let ready = series(&sample.gauges, names::OPEN_JOBS)
            .filter(|(_, labels, _)| label(labels, "state") == Some("ready"))
            .map(|(_, _, value)| value);
        let queued = series(&sample.gauges, names::QUEUE_MESSAGES).map(|(_, _, value)| value);
        self.oldest_due = self.oldest_due.max(largest(names::OLDEST_DUE_SECONDS));
        self.ready = self.ready.max(ready.sum());
        self.queued = self.queued.max(queued.sum());
    }

    fn counters(&mut self, before: &SampleData, now: &SampleData) {
        let grown = |metric: &'static str, is_counted: &dyn Fn(&str) -> bool| -> f64 {
            series(&now.counters, metric)
                .filter(|(_, labels, _)| is_counted(labels))
                .map(|(name, _, value)| {
                    increase(before.counters.get(name).copied().unwrap_or(0.0), value)
                })
                .sum()
        };
        let in_state = |states: &'static [&'static str]| {
            move |labels: &str| label(labels, "state").is_some_and(|state| states.contains(&state))
        };
        self.accepted += grown(names::ACCEPTED, &|_| true);
        self.done += grown(names::JOBS, &in_state(&["succeeded", "cancelled"]));
        self.parked += grown(names::JOBS, &in_state(&["parked"]));
        self.failed_attempts += grown(names::ATTEMPTS, &|_| true);
    }

    fn point(&self, at: OffsetDateTime) -> ChartPoint {
        ChartPoint {
            at,
            replicas: u32::try_from(self.replicas.len()).unwrap_or(u32::MAX),
            accepted: self.accepted,
            done: self.done,
            parked: self.parked,
            failed_attempts: self.failed_attempts,
            oldest_due_seconds: self.oldest_due,
            ready: self.ready,
            queued: self.queued,
            stage_p95_seconds: p95(&self.runs),
        }
    }
}

/// Returns how much a counter has grown. One that has become smaller has begun again at 0.
fn increase(before: f64, now: f64) -> f64 {
    if now >= before { now - before } else { now }
}

/// Returns the runs of a stage since an earlier sample of the same replica, by bucket.
fn runs_since(before: Option<&Buckets>, now: &Buckets) -> Buckets {
    match before {
        Some(before) if before.len() == now.len() && before.last() <= now.last() => now
            .iter()
            .zip(before)
            .map(|(now, before)| now.saturating_sub(*before))
            .collect(),
        _ => now.clone(),
    }
}

fn add(to: &mut Buckets, more: &[u64]) {
    if to.len() < more.len() {
        to.resize(more.len(), 0);
    }
    for (sum, n) in to.iter_mut().zip(more) {
        *sum += n;
    }
}

/// Returns the bound of the bucket that holds the 95th percentile; the last bound if it is beyond.
fn p95(buckets: &[u64]) -> Option<f64> {
    let all = *buckets.last().filter(|all| **all > 0)?;
    let wanted = (all * 95).div_ceil(100);
    let at = buckets.iter().position(|up_to| *up_to >= wanted)?;
    names::STAGE_BUCKETS
        .get(at)
        .or_else(|| names::STAGE_BUCKETS.last())
        .copied()
}

fn stage_times(stages: &BTreeMap<&str, Buckets>) -> Vec<StageTimes> {
    let mut times: Vec<StageTimes> = stages
        .iter()
        .filter_map(|(stage, buckets)| {
            Some(StageTimes {
                stage: (*stage).to_owned(),
                runs: buckets.last().copied()?,
                p95_seconds: p95(buckets)?,
            })
        })
        .collect();
    times.sort_by(|one, other| other.p95_seconds.total_cmp(&one.p95_seconds));
    times.truncate(STAGES);
    times
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    const FROM: OffsetDateTime = datetime!(2026-01-01 12:00:00 UTC);
    const PARKED: &str = r#"dispatch_jobs_total{pipeline="dispatch",state="parked"}"#;
    const DONE: &str = r#"dispatch_jobs_total{pipeline="messaging",state="succeeded"}"#;

    fn sample(minute: i64, replica: i64, counters: &[(&str, f64)]) -> SampleRow {
        let counters = counters.iter().map(|(name, n)| ((*name).to_owned(), *n));
        SampleRow {
            at: FROM + Duration::seconds(minute * 60 + 14),
            replica,
            data: SampleData {
                counters: counters.collect(),
                ..SampleData::default()
            },
        }
    }

    fn parked(samples: &[SampleRow], minutes: i64) -> Vec<f64> {
        let charts = Charts::of(samples, FROM, FROM + Duration::minutes(minutes));
        charts.points.iter().map(|point| point.parked).collect()
    }

    #[test]
    fn a_counter_counts_from_a_replica_s_second_sample() {
        let samples = [
            sample(0, 1, &[(PARKED, 100.0)]),
            sample(1, 1, &[(PARKED, 103.0), (DONE, 9.0)]),
            sample(1, 2, &[(PARKED, 50.0)]),
            sample(2, 2, &[(PARKED, 51.0)]),
        ];
        assert_eq!(parked(&samples, 3), [0.0, 3.0, 1.0, 0.0]);
    }

    #[test]
    fn a_restarted_process_counts_from_zero() {
        let samples = [
            sample(0, 1, &[(PARKED, 100.0)]),
            sample(1, 1, &[(PARKED, 2.0)]),
            sample(2, 1, &[]),
            sample(3, 1, &[(PARKED, 1.0)]),
        ];
        assert_eq!(parked(&samples, 3), [0.0, 2.0, 0.0, 1.0]);
    }

    #[test]
    fn samples_of_other_times_change_no_point_but_are_a_beginning() {
        let samples = [
            sample(-1, 1, &[(PARKED, 1.0)]),
            sample(0, 1, &[(PARKED, 5.0)]),
            sample(9, 1, &[(PARKED, 50.0)]),
        ];
        assert_eq!(parked(&samples, 1), [4.0, 0.0]);
    }

    #[test]
    fn gauges_of_replicas_that_measure_the_same_are_not_added() {
        let mut samples = [sample(0, 1, &[]), sample(0, 2, &[])];
        for (sample, n) in samples.iter_mut().zip([7.0, 8.0]) {
            for name in [
                r#"dispatch_open_jobs{lane="dispatch",state="ready"}"#,
                r#"dispatch_open_jobs{lane="messaging",state="ready"}"#,
                r#"dispatch_open_jobs{lane="messaging",state="parked"}"#,
                r#"dispatch_oldest_due_seconds{lane="messaging"}"#,
            ] {
                sample.data.gauges.insert(name.to_owned(), n);
            }
        }
        let point = &Charts::of(&samples, FROM, FROM).points[0];
        assert_eq!((point.replicas, point.ready), (2, 16.0));
        assert_eq!(point.oldest_due_seconds, 8.0);
    }

    #[test]
    fn the_95th_percentile_is_the_bound_of_its_bucket() {
        let buckets = |within: [u64; 2], all: u64| {
            let mut buckets = vec![within[1]; names::STAGE_BUCKETS.len() + 1];
            buckets[0] = within[0];
            *buckets.last_mut().unwrap() = all;
            buckets
        };
        assert_eq!(p95(&buckets([95, 100], 100)), Some(0.002));
        assert_eq!(p95(&buckets([94, 100], 100)), Some(0.005));
        assert_eq!(p95(&buckets([0, 10], 100)), Some(300.0), "beyond the last");
        assert_eq!(p95(&buckets([0, 0], 0)), None);
        assert_eq!(p95(&[]), None);
    }

    #[test]
    fn the_times_of_a_stage_are_those_between_two_samples() {
        let mut samples = [sample(0, 1, &[]), sample(1, 1, &[])];
        let stage = "dispatch/check_account".to_owned();
        let mut buckets = vec![4; names::STAGE_BUCKETS.len() + 1];
        samples[0]
            .data
            .stages
            .insert(stage.clone(), buckets.clone());
        buckets[5..].fill(9);
        samples[1].data.stages.insert(stage.clone(), buckets);
        let charts = Charts::of(&samples, FROM, FROM + Duration::minutes(1));
        let expected = StageTimes {
            stage,
            runs: 5,
            p95_seconds: 0.1,
        };
        assert_eq!(charts.stages, [expected]);
        assert_eq!(charts.points[1].stage_p95_seconds, Some(0.1));
    }
}
