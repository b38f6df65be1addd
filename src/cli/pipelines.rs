//! `dispatch pipelines`: prints every stage in order from the registry that the worker runs.

use std::process::ExitCode;

use comfy_table::Cell;
use serde::Serialize;

use super::output::{Output, rendered};
use crate::engine::{Product, Registry, StageInfo};
use crate::job::EffectClass;
use crate::pipelines;

#[derive(Debug, Serialize)]
struct PipelineRow {
    pipeline: &'static str,
    lane: &'static str,
    queue: &'static str,
    stages: Vec<StageRow>,
}

#[derive(Debug, Serialize)]
struct StageRow {
    stage: &'static str,
    version: i32,
    /// Reached only by a jump from another stage.
    aside: bool,
    needs: &'static [&'static str],
    effect: Option<EffectClass>,
    attempts: i32,
    first_delay_seconds: f64,
    longest_delay_seconds: f64,
    timeout_seconds: f64,
}

/// Prints the list.
pub(super) fn run(output: Output) -> anyhow::Result<ExitCode> {
    let rows = rows(&pipelines::registry());
    output.answer(&rows, || text(output, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn rows<P: Product>(registry: &Registry<P>) -> Vec<PipelineRow> {
    registry
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

fn text(output: Output, rows: &[PipelineRow]) -> String {
    let mut table = output.table(&[
        "pipeline",
        "",
        "stage",
        "needs",
        "effect",
        "attempts",
        "delays up to",
        "timeout",
    ]);
    for row in rows {
        let mut order = 0;
        for stage in &row.stages {
            order += usize::from(!stage.aside);
            table.add_row([
                Cell::new(row.pipeline),
                Cell::new(if stage.aside {
                    "aside".to_owned()
                } else {
                    order.to_string()
                }),
                Cell::new(stage.stage),
                Cell::new(if stage.needs.is_empty() {
                    "-".to_owned()
                } else {
                    stage.needs.join(", ")
                }),
                Cell::new(stage.effect.map_or("-", EffectClass::word)),
                Cell::new(stage.attempts),
                Cell::new(format!(
                    "{}, {}",
                    seconds(stage.first_delay_seconds),
                    seconds(stage.longest_delay_seconds)
                )),
                Cell::new(seconds(stage.timeout_seconds)),
            ]);
        }
    }
    rendered(table)
}

/// Formats seconds in the largest unit that divides them: `30 s`, `5 min`, `12 h`.
fn seconds(number: f64) -> String {
    match [(3600.0, "h"), (60.0, "min")]
        .into_iter()
        .find(|(unit, _)| number >= *unit && number % unit == 0.0)
    {
        Some((unit, name)) => format!("{} {name}", number / unit),
        None => format!("{number} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_printed_stage_by_stage_in_order() {
        let text = text(Output::new(false), &rows(&pipelines::registry()));
        let place = |stage: &str| {
            text.find(stage)
                .unwrap_or_else(|| panic!("no {stage} in:\n{text}"))
        };
        assert!(
            place("check_account") < place("send_follow_ups")
                && place("send_follow_ups") < place("patch_work_item")
        );
        assert!(
            text.lines()
                .any(|line| line.contains("aside") && line.contains("show_configuration")),
            "{text}"
        );
    }

    #[test]
    fn durations_are_printed_in_the_largest_unit_that_divides_them() {
        assert_eq!(
            [0.5, 30.0, 90.0, 300.0, 43_200.0].map(seconds),
            ["0.5 s", "30 s", "90 s", "5 min", "12 h"]
        );
    }
}
