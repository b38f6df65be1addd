//! `dispatch holds list|place|release`: holds, which make the jobs of a destination or of a wider
//! scope wait for a time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::duration::of_control;
use super::failure::Usage;
use super::output::{Output, ask, can_ask, plain, rendered, when};
use crate::config::{self, Links};
use crate::operations;
use crate::store::{Actor, HoldRow, Role, Store};

/// List, place and release holds of destinations, providers, lanes, stages and organizations
#[derive(Debug, Subcommand)]
pub(super) enum Holds {
    List(List),
    Place(Place),
    Release(Release),
}

/// List the holds and the pause in force with their start, end, reason and number of waiting jobs
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
}

/// Place a hold: the jobs of its scope wait until the hold ends, all others continue
#[derive(Debug, Args)]
pub(super) struct Place {
    #[command(flatten)]
    action: Action,
    /// Duration of the hold: 90s, 10m, 2h, 7d; at most a week
    #[arg(long = "for", default_value = "1h", value_parser = of_control, value_name = "LENGTH")]
    length: Duration,
}

/// Release the holds of a scope; waiting jobs continue, a few at a time
#[derive(Debug, Args)]
pub(super) struct Release {
    #[command(flatten)]
    action: Action,
}

#[derive(Debug, Args)]
struct Action {
    #[command(flatten)]
    links: Links,
    /// Destination: organization|provider|host, organization|channel|number of the destination, or *|channel|name for
    /// destinations with a common limit, as `dispatch holds list` shows them. Or lane:NAME, stage:PIPELINE/STAGE,
    /// organization:SLUG or provider:NAME
    #[arg(value_parser = scope)]
    scope: String,
    /// Reason for the audit log, shown with the hold and for waiting jobs
    #[arg(long)]
    reason: String,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

impl Holds {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Place(place) => place.run(output).await,
            Self::Release(release) => release.run(output).await,
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let rows = connect::store(&self.links).await?.holds().await?;
        output.answer(&rows, || table(output, &rows))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Place {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self.action.agreed("Hold").await?;
        let (scope, actor) = (&self.action.scope, self.action.actor());
        let until = operations::hold(&store, &actor, scope, self.length).await?;
        let value = json!({"scope": scope, "action": "place", "until": when(until)});
        output.answer(&value, || {
            format!("{} is held until {}", plain(scope), when(until))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Release {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self.action.agreed("Release every hold of").await?;
        let scope = &self.action.scope;
        let ended = operations::release(&store, &self.action.actor(), scope).await?;
        let value = json!({"scope": scope, "action": "release", "ended": ended});
        output.answer(&value, || {
            format!(
                "{} is no longer held; its jobs continue, a few at a time",
                plain(scope)
            )
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Action {
    /// Asks for consent to do `verb` to the scope, then returns the store.
    async fn agreed(&self, verb: &str) -> anyhow::Result<Store> {
        if !self.yes && !can_ask() {
            return Err(Usage(
                "expected a terminal for the confirmation prompt, got none; use --yes".to_owned(),
            )
            .into());
        }
        let store = connect::store(&self.links).await?;
        if !self.yes && !ask(&format!("{verb} {}?", self.scope))? {
            bail!("not confirmed; nothing was changed");
        }
        Ok(store)
    }

    fn actor(&self) -> Actor {
        Actor {
            who: config::user(),
            role: Role::Admin,
            reason: Some(self.reason.clone()),
            request: None,
        }
    }
}

fn table(output: Output, rows: &[HoldRow]) -> String {
    let mut table = output.table(&["scope", "kind", "since", "until", "who", "why", "waiting"]);
    for row in rows {
        table.add_row([
            Cell::new(plain(&row.scope)),
            Cell::new(&row.kind),
            Cell::new(when(row.created_at)),
            Cell::new(when(row.expires_at)),
            Cell::new(plain(&row.who)),
            Cell::new(plain(&row.reason)),
            Cell::new(row.waiting),
        ]);
    }
    rendered(table)
}

fn scope(text: &str) -> Result<String, String> {
    operations::check_scope(text).map(|()| text.to_owned())
}
