//! `dispatch campaigns preview|start`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use comfy_table::Cell;

use super::filter::Chosen;
use crate::cli::connect;
use crate::cli::consent::operator;
use crate::cli::failure::Usage;
use crate::cli::output::{Output, ask, can_ask, or_dash, plain, rendered, say_lines, when};
use crate::config::Links;
use crate::operations::{self, CampaignPreview};
use crate::store::NewCampaign;

/// Show what a campaign would do: jobs, refusals, effects that may happen twice, holds
#[derive(Debug, Args)]
pub(in crate::cli) struct Preview {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    chosen: Chosen,
}

/// Start a campaign on the jobs that match now, at most 100,000; it begins 10 s later
#[derive(Debug, Args)]
pub(in crate::cli) struct Start {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    chosen: Chosen,
    /// Jobs a second after the first waves of 1 and 10, 1 to 100
    #[arg(long, default_value_t = 5, value_name = "N")]
    per_second: i32,
    /// Pause when more than this percentage of a wave is parked again
    #[arg(long, default_value_t = 20, value_name = "PERCENT")]
    stop_at: i32,
    /// Accept this many effects of class K3 that may happen twice
    #[arg(long, default_value_t = 0, value_name = "N")]
    duplicates: i32,
    /// Reason for the audit log
    #[arg(long)]
    reason: String,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

impl Preview {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let filter = self.chosen.filter();
        let preview = operations::preview_campaign(&store, self.chosen.action, &filter).await?;
        output.answer(&preview, || text(output, &preview))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Start {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        if !self.yes && !can_ask() {
            return Err(Usage(
                "expected a terminal for the confirmation prompt, got none; use --yes".to_owned(),
            )
            .into());
        }
        let store = connect::store(&self.links).await?;
        let new = NewCampaign {
            action: self.chosen.action,
            filter: self.chosen.filter(),
            per_second: self.per_second,
            stop_at_percent: self.stop_at,
            duplicates: self.duplicates,
        };
        if !self.yes {
            let preview = operations::preview_campaign(&store, new.action, &new.filter).await?;
            say_lines(&text(Output::new(false), &preview));
            let question = format!("Start a {} of {} jobs?", new.action.word(), preview.count);
            if !ask(&question)? {
                bail!("not confirmed; nothing was changed");
            }
        }
        let actor = operator(Some(self.reason));
        let started = operations::start_campaign(&store, &actor, &new).await?;
        output.answer(&started, || {
            let more = if started.is_partial {
                "; more jobs match than a campaign may have: start another one after it"
            } else {
                ""
            };
            format!(
                "campaign {}: {} jobs, begins at {}{more}",
                started.campaign,
                started.jobs,
                when(started.starts_at)
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(output: Output, preview: &CampaignPreview) -> String {
    let mut table = output.table(&["id", "organization", "pipeline", "state", "stage", "code"]);
    for job in &preview.sample {
        table.add_row([
            Cell::new(job.id),
            Cell::new(plain(&job.organization)),
            Cell::new(plain(&job.pipeline)),
            output.state(job.state),
            Cell::new(plain(&job.stage)),
            Cell::new(or_dash(job.error_code.as_deref())),
        ]);
    }
    let mut lines = Vec::new();
    if !preview.sample.is_empty() {
        lines.extend([rendered(table), String::new()]);
    }
    lines.push(format!("{} jobs match", preview.count));
    if preview.is_partial {
        lines.push(
            "not every job was looked at, so there may be more; the campaign looks at 100,000"
                .to_owned(),
        );
    }
    for refused in &preview.refused {
        lines.push(format!(
            "{} would be refused: {}",
            refused.jobs, refused.why
        ));
    }
    for effects in &preview.effects {
        lines.push(format!(
            "{} effects of class {} of {} jobs may have happened already",
            effects.effects, effects.class, effects.jobs
        ));
    }
    for hold in &preview.holds {
        lines.push(format!(
            "{} is held until {}: {}",
            plain(&hold.scope),
            when(hold.until),
            plain(&hold.reason)
        ));
    }
    lines.join("\n")
}
