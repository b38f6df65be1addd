//! `dispatch pipelines`: prints every stage in order from the registry that the worker runs.

use std::process::ExitCode;

use comfy_table::Cell;

use super::output::{Output, rendered};
use crate::job::EffectClass;
use crate::pipelines::{PipelineRow, in_largest_unit, pipeline_rows};

/// Prints the list.
pub(super) fn run(output: Output) -> anyhow::Result<ExitCode> {
    let rows = pipeline_rows();
    output.answer(&rows, || text(output, &rows))?;
    Ok(ExitCode::SUCCESS)
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
                    in_largest_unit(stage.first_delay_seconds),
                    in_largest_unit(stage.longest_delay_seconds)
                )),
                Cell::new(in_largest_unit(stage.timeout_seconds)),
            ]);
        }
    }
    rendered(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_printed_stage_by_stage_in_order() {
        let text = text(Output::new(false), &pipeline_rows());
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
}
