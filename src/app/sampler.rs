//! Samples this replica: writes its counters, gauges, times of stages and readiness to Postgres
//! every 15 s, and at once when the readiness changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use time::OffsetDateTime;

use crate::maintenance::{Duty, DutyError, Plan};
use crate::ops::{Check, Readiness};
use crate::readiness::WorkerReadiness;
use crate::store::{SampleData, Store};
use crate::telemetry::names;

/// The interval between samples while the readiness does not change.
const EVERY: Duration = Duration::from_secs(15);

pub(super) struct Sampler {
    store: Store,
    readiness: Arc<WorkerReadiness>,
    metrics: PrometheusHandle,
    /// When the last sample was stored, and the checks that failed then.
    last: Option<(Instant, Vec<String>)>,
}

impl Sampler {
    pub(super) const fn new(
        store: Store,
        readiness: Arc<WorkerReadiness>,
        metrics: PrometheusHandle,
    ) -> Self {
        Self {
            store,
            readiness,
            metrics,
            last: None,
        }
    }
}

impl Duty for Sampler {
    const PLAN: Plan = Plan {
        name: "samples",
        every: Duration::from_secs(2),
        at_most: Duration::from_secs(30),
        late_after: Duration::from_secs(120),
    };

    async fn round(&mut self, _: OffsetDateTime) -> Result<bool, DutyError> {
        let checks = self.readiness.checks().await;
        let not_ready = show(&checks);
        let is_due = self
            .last
            .as_ref()
            .is_none_or(|(at, before)| at.elapsed() >= EVERY || *before != not_ready);
        let Some(replica) = self.readiness.replica().filter(|_| is_due) else {
            return Ok(false);
        };
        let sample = SampleData {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: not_ready.is_empty(),
            not_ready: not_ready.clone(),
            intake_paused: self.readiness.intake_paused(),
            ..read(&self.metrics.render())
        };
        self.store.add_sample(replica, &sample).await?;
        self.last = Some((Instant::now(), not_ready));
        Ok(self.store.forget_samples().await?)
    }
}

/// Sets the gauges of readiness and of the links, and returns the names of the checks that fail.
fn show(checks: &[Check]) -> Vec<String> {
    for check in checks {
        let link = match check.name.as_str() {
            link @ ("postgres" | "publisher") => Some(link),
            name => name.strip_prefix("lane_"),
        };
        if let Some(link) = link {
            gauge!(names::LINK_UP, "link" => link.to_owned()).set(f64::from(u8::from(check.ok)));
        }
    }
    let failed = checks.iter().filter(|check| !check.ok);
    let not_ready: Vec<String> = failed.map(|check| check.name.clone()).collect();
    gauge!(names::READY).set(f64::from(u8::from(not_ready.is_empty())));
    not_ready
}

/// Reads the series that are not 0 from a scrape in the text format of Prometheus; of the
/// histograms, only the durations of stages, added up over their outcomes.
fn read(scrape: &str) -> SampleData {
    let mut sample = SampleData::default();
    let mut kind = "";
    for line in scrape.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            kind = described.split(' ').nth(1).unwrap_or_default();
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let value: f64 = value.parse().unwrap_or_default();
        match kind {
            "counter" if value != 0.0 => {
                sample.counters.insert(series.to_owned(), value);
            }
            "gauge" if value != 0.0 => {
                sample.gauges.insert(series.to_owned(), value);
            }
            "histogram" => add_stage(&mut sample.stages, series, value as u64),
            _ => {}
        }
    }
    sample.stages.retain(|_, counts| counts.last() != Some(&0));
    sample
}

/// Adds a bucket of a stage's durations; the buckets of a series are in the order of their bounds.
fn add_stage(stages: &mut BTreeMap<String, Vec<u64>>, series: &str, count: u64) {
    let Some(labels) = series
        .strip_prefix(names::STAGE_SECONDS)
        .and_then(|rest| rest.strip_prefix("_bucket"))
    else {
        return;
    };
    let label = |name: &str| {
        let (_, rest) = labels.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0)
    };
    let (Some(pipeline), Some(stage), Some(bound)) =
        (label("pipeline"), label("stage"), label("le"))
    else {
        return;
    };
    let bounds = &names::STAGE_BUCKETS;
    let at = bound
        .parse()
        .ok()
        .and_then(|bound: f64| bounds.iter().position(|one| *one == bound))
        .unwrap_or(bounds.len());
    let counts = stages
        .entry(format!("{pipeline}/{stage}"))
        .or_insert_with(|| vec![0; bounds.len() + 1]);
    counts[at] += count;
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = r#"
# TYPE dispatch_jobs_total counter
dispatch_jobs_total{pipeline="dispatch",state="parked"} 3
dispatch_jobs_total{pipeline="dispatch",state="waiting"} 0
# TYPE dispatch_ready gauge
dispatch_ready 1
# TYPE dispatch_stage_seconds histogram
dispatch_stage_seconds_bucket{pipeline="dispatch",stage="check_account",outcome="succeeded",le="0.002"} 1
dispatch_stage_seconds_bucket{pipeline="dispatch",stage="check_account",outcome="succeeded",le="+Inf"} 2
dispatch_stage_seconds_sum{pipeline="dispatch",stage="check_account",outcome="succeeded"} 7.5
dispatch_stage_seconds_bucket{pipeline="dispatch",stage="check_account",outcome="parked",le="+Inf"} 1
dispatch_stage_seconds_bucket{pipeline="dispatch",stage="fetch_states",outcome="parked",le="+Inf"} 0
# TYPE dispatch_group_rows histogram
dispatch_group_rows_bucket{le="+Inf"} 9
"#;

    #[test]
    fn a_sample_has_what_is_not_zero_and_the_durations_of_stages() {
        let sample = read(SCRAPE);
        let parked = r#"dispatch_jobs_total{pipeline="dispatch",state="parked"}"#;
        assert_eq!(sample.counters, BTreeMap::from([(parked.to_owned(), 3.0)]));
        assert_eq!(
            sample.gauges,
            BTreeMap::from([("dispatch_ready".to_owned(), 1.0)])
        );
        let mut counts = vec![0; names::STAGE_BUCKETS.len() + 1];
        (counts[0], *counts.last_mut().unwrap()) = (1, 3);
        assert_eq!(
            sample.stages,
            BTreeMap::from([("dispatch/check_account".to_owned(), counts)])
        );
    }
}
