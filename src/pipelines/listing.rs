//! The pipelines with their lanes and stages in order, as people and programs read them.

use schemars::JsonSchema;
use serde::Serialize;

use super::registry;
use crate::engine::StageInfo;
use crate::job::EffectClass;

/// A pipeline.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PipelineRow {
    pub pipeline: &'static str,
    pub lane: &'static str,
    /// The queue of the lane in RabbitMQ.
    pub queue: &'static str,
    /// In the order in which they run.
    pub stages: Vec<StageRow>,
}

/// A stage.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StageRow {
    pub stage: &'static str,
    /// The version of its output.
    pub version: i32,
    /// Reached only by a jump from another stage.
    pub aside: bool,
    /// The stages whose outputs it reads.
    pub needs: &'static [&'static str],
    /// The class of its effect, if it has one.
    pub effect: Option<EffectClass>,
    pub attempts: i32,
    pub first_delay_seconds: f64,
    pub longest_delay_seconds: f64,
    pub timeout_seconds: f64,
}

/// Returns every pipeline that a worker of this version runs.
#[must_use]
pub fn pipeline_rows() -> Vec<PipelineRow> {
    registry()
        .iter()
        .map(|pipeline| PipelineRow {
            pipeline: pipeline.name,
            lane: pipeline.lane.name,
            queue: pipeline.lane.queue,
            stages: pipeline.stages().map(StageRow::of).collect(),
        })
        .collect()
}

impl StageRow {
    fn of(info: &StageInfo) -> Self {
        Self {
            stage: info.name,
            version: info.version,
            aside: info.off_path,
            needs: info.needs,
            effect: info.effect,
            attempts: info.retry.attempts,
            first_delay_seconds: info.retry.base.as_secs_f64(),
            longest_delay_seconds: info.retry.cap.as_secs_f64(),
            timeout_seconds: info.timeout.as_secs_f64(),
        }
    }
}

/// Formats seconds in the largest unit that divides them: `30 s`, `5 min`, `12 h`.
#[must_use]
pub fn in_largest_unit(seconds: f64) -> String {
    match [(3600.0, "h"), (60.0, "min")]
        .into_iter()
        .find(|(unit, _)| seconds >= *unit && seconds % unit == 0.0)
    {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_printed_in_the_largest_unit_that_divides_them() {
        assert_eq!(
            [0.5, 30.0, 90.0, 300.0, 43_200.0].map(in_largest_unit),
            ["0.5 s", "30 s", "90 s", "5 min", "12 h"]
        );
    }
}
