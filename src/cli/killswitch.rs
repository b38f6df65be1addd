//! `dispatch killswitch place|list|end`: parks or cancels the jobs that match, before their next
//! stage.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::consent::Consent;
use super::duration::of_control;
use super::output::{Output, plain, rendered, when};
use crate::config::Links;
use crate::operations::{self, CheckedKillSwitch};
use crate::store::{ControlRow, KillAction, KillPreview, Matcher, PayloadCondition, Store};

/// List, place and end kill switches, which park or cancel the jobs that match
#[derive(Debug, Subcommand)]
pub(super) enum Killswitch {
    List(List),
    Place(Box<Place>),
    End(End),
}

/// List the kill switches in force with their matcher, end and reason
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
}

/// Place a kill switch: every job for which all conditions hold is stopped before its next stage
#[derive(Debug, Args)]
pub(super) struct Place {
    #[command(flatten)]
    links: Links,
    /// Jobs of this organization
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// Jobs of this producer; the source of a follow-up is the pipeline of its parent
    #[arg(long)]
    source: Option<String>,
    /// Jobs with this account id
    #[arg(long)]
    account: Option<String>,
    /// Jobs of this pipeline
    #[arg(long)]
    pipeline: Option<String>,
    /// Jobs with this value in the payload: names and numbers of elements joined by dots, = and the value; repeatable
    #[arg(long, value_name = "PATH=VALUE", value_parser = PayloadCondition::parse)]
    payload: Vec<PayloadCondition>,
    /// What becomes of the jobs: park or cancel
    #[arg(long, value_parser = action, value_name = "park|cancel")]
    action: KillAction,
    /// Duration of the kill switch: 90s, 10m, 2h, 7d; at most a week
    #[arg(long = "for", default_value = "1h", value_parser = of_control, value_name = "LENGTH")]
    length: Duration,
    /// Count the jobs that match, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Consent,
}

/// End a kill switch; the jobs that it parked stay parked until they are retried
#[derive(Debug, Args)]
pub(super) struct End {
    #[command(flatten)]
    links: Links,
    /// Number of the kill switch, as `dispatch killswitch list` shows it
    id: i64,
    #[command(flatten)]
    consent: Consent,
}

impl Killswitch {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Place(place) => place.run(output).await,
            Self::End(end) => end.run(output).await,
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let mut rows = store.controls("").await?.controls;
        rows.retain(|row| row.kind == "kill_switch");
        output.answer(&rows, || table(output, &rows))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Place {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let Self {
            links,
            organization,
            source,
            account,
            pipeline,
            payload,
            action,
            length,
            dry_run,
            consent,
        } = self;
        let switch = CheckedKillSwitch::new(Matcher {
            organization,
            source,
            account,
            pipeline,
            payload,
            action,
        })?;
        let actor = consent.actor_with_reason()?;
        if dry_run {
            return preview(&connect::store(&links).await?, &switch, output).await;
        }
        consent.can_be_had()?;
        let store = connect::store(&links).await?;
        consent.to(&format!("Stop every job that matches (action: {action})?"))?;
        let (id, until) = operations::place_kill_switch(&store, &actor, &switch, length).await?;
        let value =
            json!({"id": id, "action": "place", "matcher": switch.matcher(), "until": when(until)});
        output.answer(&value, || {
            format!("Kill switch {id} is in force until {}", when(until))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl End {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let actor = self.consent.actor_with_reason()?;
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent.to(&format!("End kill switch {}?", self.id))?;
        operations::end_kill_switch(&store, &actor, self.id).await?;
        output.answer(&json!({"id": self.id, "action": "end"}), || {
            format!(
                "Kill switch {} has ended; `dispatch jobs retry` runs the jobs that it parked",
                self.id
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn preview(
    store: &Store,
    switch: &CheckedKillSwitch,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let found = store.preview_kill_switch(switch.matcher()).await?;
    output.answer(&found, || shown(output, &found))?;
    Ok(ExitCode::SUCCESS)
}

fn shown(output: Output, found: &KillPreview) -> String {
    let of = |is_complete| {
        if is_complete {
            ""
        } else {
            " among those looked at"
        }
    };
    let mut table = output.table(&["job", "organization", "source", "state"]);
    for job in &found.sample {
        table.add_row([
            Cell::new(job.id),
            Cell::new(plain(&job.organization)),
            Cell::new(plain(&job.source)),
            output.state(job.state),
        ]);
    }
    let counts = format!(
        "Open jobs that match: {}{}; intake of the last hour that matches: {}{}. Nothing was changed.",
        found.open,
        of(found.open_is_complete),
        found.intake_of_last_hour,
        of(found.intake_is_complete)
    );
    if found.sample.is_empty() {
        counts
    } else {
        format!("{counts}\n{}", rendered(table))
    }
}

fn table(output: Output, rows: &[ControlRow]) -> String {
    let mut table = output.table(&[
        "id",
        "matcher",
        "since",
        "until",
        "who",
        "why",
        "understood",
    ]);
    for row in rows {
        let matcher = row.matcher.as_ref().map(ToString::to_string);
        table.add_row([
            Cell::new(row.id),
            Cell::new(plain(&matcher.unwrap_or_default())),
            Cell::new(when(row.created_at)),
            Cell::new(when(row.expires_at)),
            Cell::new(plain(&row.who)),
            Cell::new(plain(&row.reason)),
            Cell::new(if row.is_understood {
                "yes"
            } else {
                "no: it stops no job"
            }),
        ]);
    }
    rendered(table)
}

fn action(text: &str) -> Result<KillAction, String> {
    text.parse::<KillAction>()
        .map_err(|error| error.to_string())
}
