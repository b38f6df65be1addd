//! `dispatch campaigns list|show|report`.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use comfy_table::Cell;

use crate::cli::connect;
use crate::cli::output::{Output, or_dash, plain, rendered, when};
use crate::config::Links;
use crate::store::{CampaignRow, Store};

/// Items that are read at once for a report.
const PAGE: i64 = 1_000;

/// List campaigns, newest first
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    links: Links,
    /// Maximum number of campaigns
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    /// Only campaigns before this one: the last of the previous page
    #[arg(long, value_name = "CAMPAIGN")]
    before: Option<i64>,
}

/// Show a campaign: its items by result, its wave, the last verdicts, jobs that failed alike since
#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    one: One,
}

/// Print every item of a campaign with its result, as a JSON document on each line
#[derive(Debug, Args)]
pub(in crate::cli) struct Report {
    #[command(flatten)]
    one: One,
}

#[derive(Debug, Args)]
struct One {
    #[command(flatten)]
    links: Links,
    /// Number of the campaign
    #[arg(value_name = "CAMPAIGN")]
    id: i64,
}

impl One {
    async fn read(&self) -> anyhow::Result<(Store, CampaignRow)> {
        let store = connect::store(&self.links).await?;
        let campaign = store.campaign(self.id).await?;
        Ok((store, campaign.context("there is no such campaign")?))
    }
}

impl List {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let rows = store.campaigns(self.before, self.limit).await?;
        output.answer(&rows, || table(output, &rows))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (_, campaign) = self.one.read().await?;
        output.answer(&campaign, || text(output, &campaign))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Report {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let (store, _) = self.one.read().await?;
        let lines = Output::new(true);
        let mut after = 0;
        loop {
            let items = store.campaign_items(self.one.id, after, PAGE).await?;
            for item in &items {
                lines.answer(item, String::new)?;
            }
            match items.last() {
                Some(last) => after = last.n,
                None => return Ok(ExitCode::SUCCESS),
            }
        }
    }
}

fn table(output: Output, rows: &[CampaignRow]) -> String {
    let mut table = output.table(&[
        "id", "action", "state", "jobs", "open", "acted", "refused", "good", "bad", "unknown",
        "started", "who", "reason",
    ]);
    for row in rows {
        let mut cells = vec![
            Cell::new(row.id),
            Cell::new(plain(&row.action)),
            Cell::new(&row.state),
        ];
        let counts = [
            row.total,
            row.open,
            row.acted,
            row.refused,
            row.good,
            row.bad,
            row.unknown,
        ];
        cells.extend(counts.map(Cell::new));
        cells.extend([
            Cell::new(when(row.created_at)),
            Cell::new(plain(&row.who)),
            Cell::new(plain(&row.reason)),
        ]);
        table.add_row(cells);
    }
    rendered(table)
}

fn text(output: Output, campaign: &CampaignRow) -> String {
    let mut lines = vec![table(output, std::slice::from_ref(campaign)), String::new()];
    lines.push(format!("filter: {}", plain(&campaign.filter.to_string())));
    lines.push(format!(
        "wave {} up to item {}, {} a second; pauses when more than {} % of a wave is parked again",
        campaign.wave, campaign.wave_until, campaign.per_second, campaign.stop_at_percent
    ));
    if campaign.why.is_some() {
        lines.push(format!(
            "{}: {}",
            campaign.state,
            or_dash(campaign.why.as_deref())
        ));
    }
    for wave in &campaign.verdicts {
        lines.push(format!(
            "wave {} up to item {}: {} good, {} bad, {} unknown, {} refused",
            wave.wave, wave.until, wave.good, wave.bad, wave.unknown, wave.refused
        ));
    }
    if let Some(since) = campaign.failed_since.filter(|since| !since.is_zero()) {
        lines.push(format!("{since} jobs failed alike since: not included"));
    }
    lines.join("\n")
}
