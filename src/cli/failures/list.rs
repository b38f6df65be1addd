//! `dispatch failures list`: lists failure groups, the last seen first.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{Cell, ColumnConstraint};

use crate::cli::connect;
use crate::cli::output::{Output, plain, rendered, say, when};
use crate::config::Links;
use crate::store::{CodeFilter, FailureGroup, GroupFilter, GroupPage, GroupStatus};

/// List failure groups, the last seen first
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    links: Links,
    /// Only with this status: new, ongoing, regressed, muted or resolved
    #[arg(long)]
    status: Option<GroupStatus>,
    /// Only of this pipeline
    #[arg(long)]
    pipeline: Option<String>,
    /// Only at this stage
    #[arg(long)]
    stage: Option<String>,
    /// Only with this error code (slack.not_in_channel), or with a code that begins so (slack.*)
    #[arg(long, value_name = "CODE")]
    error_code: Option<CodeFilter>,
    /// Show at most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=200))]
    limit: i64,
}

impl List {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let filter = GroupFilter {
            status: self.status,
            pipeline: self.pipeline,
            stage: self.stage,
            error_code: self.error_code,
        };
        let page = GroupPage {
            after: None,
            limit: self.limit,
        };
        let listed = store.failure_groups(&filter, &page).await?;
        output.answer(&listed.groups, || {
            if listed.groups.is_empty() {
                String::new()
            } else {
                table(output, &listed.groups)
            }
        })?;
        if listed.groups.is_empty() {
            say("no failure groups");
        } else if listed.next.is_some() {
            say("there may be more groups; use --limit or a narrower filter");
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(output: Output, groups: &[FailureGroup]) -> String {
    let mut table = output.table(&[
        "fingerprint",
        "status",
        "code",
        "stage",
        "parked",
        "retrying",
        "organizations",
        "last hour (before)",
        "first seen",
        "last seen",
    ]);
    for group in groups {
        let trend = format!("{} ({})", group.trend.last_hour, group.trend.hour_before);
        table.add_row([
            Cell::new(plain(&group.fingerprint)),
            Cell::new(group.status),
            Cell::new(plain(&group.error_code)),
            Cell::new(plain(&format!("{}/{}", group.pipeline, group.stage))),
            Cell::new(group.parked),
            Cell::new(group.retrying),
            Cell::new(group.organizations),
            Cell::new(trend),
            Cell::new(when(group.first_seen_at)),
            Cell::new(when(group.last_seen_at)),
        ]);
    }
    // Fingerprints are not wrapped, so that they can be copied.
    if let Some(column) = table.column_mut(0) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    rendered(table)
}
