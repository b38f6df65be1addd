//! `dispatch holds list|place|release`: destinations that are left alone for a time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::failure::Usage;
use super::output::{Output, ask, can_ask, plain, rendered, when};
use crate::config::{self, Links};
use crate::store::{Actor, HoldRow, Store};

/// See which destinations are left alone, and why; hold one, or end its hold
#[derive(Debug, Subcommand)]
pub(super) enum Holds {
    List(List),
    Place(Place),
    Release(Release),
}

/// List the holds in force: since when, until when, why, and how many jobs wait
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
}

/// Hold one destination: its jobs wait until then, all others go on
#[derive(Debug, Args)]
pub(super) struct Place {
    #[command(flatten)]
    action: Action,
    /// For how long: 90s, 10m, 2h; a week at most
    #[arg(long = "for", default_value = "1h", value_parser = length, value_name = "LENGTH")]
    length: Duration,
}

/// End the holds of one destination; the jobs that wait for them go on a few at a time
#[derive(Debug, Args)]
pub(super) struct Release {
    #[command(flatten)]
    action: Action,
}

#[derive(Debug, Args)]
struct Action {
    #[command(flatten)]
    links: Links,
    /// Which destination: organization|provider|host, organization|channel|number of the destination, or all that are limited
    /// together, as `dispatch holds list` shows them: *|channel|name
    #[arg(value_parser = scope)]
    scope: String,
    /// Why, for the audit log and for whoever waits
    #[arg(long)]
    reason: String,
    /// Do not ask
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
        if let Some((destination, _)) = scope.split_once('#') {
            bail!("expected a whole destination, got what waits for a seat there; use '{destination}'");
        }
        let until = store.hold(scope, self.length, &actor).await?;
        let value = json!({"scope": scope, "action": "place", "until": when(until)});
        output.answer(&value, || format!("{} is held until {}", plain(scope), when(until)))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Release {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self.action.agreed("End every hold of").await?;
        let scope = &self.action.scope;
        let ended = store.end_holds(scope, &self.action.actor()).await?;
        if ended == 0 {
            bail!("{scope} is not held; `dispatch holds list` shows what is");
        }
        let value = json!({"scope": scope, "action": "release", "ended": ended});
        output.answer(&value, || format!("{} is held no more; its jobs go on a few at a time", plain(scope)))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Action {
    /// The store, once somebody has agreed to do `verb` to the destination.
    async fn agreed(&self, verb: &str) -> anyhow::Result<Store> {
        if !self.yes && !can_ask() {
            return Err(Usage("there is no terminal to ask on; right is --yes".to_owned()).into());
        }
        let store = connect::store(&self.links).await?;
        if !self.yes && !ask(&format!("{verb} {}?", self.scope))? {
            bail!("nothing was changed");
        }
        Ok(store)
    }

    fn actor(&self) -> Actor {
        Actor { who: config::user(), role: "operator".to_owned(), reason: Some(self.reason.clone()) }
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

/// A misspelt scope would hold nothing and say so to nobody.
fn scope(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('|').collect();
    if parts.len() == 3 && parts.iter().all(|part| !part.trim().is_empty()) {
        return Ok(text.to_owned());
    }
    Err("expected three parts, such as 'acme|azure_devops|dev.azure.com' or 'acme|discord|7'; use a scope as `dispatch holds list` \
         shows it"
        .to_owned())
}

/// A hold is not to be forgotten.
const LONGEST: u64 = 7 * 86_400;

fn length(text: &str) -> Result<Duration, String> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let unit = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
    let seconds = unit.and_then(|(number, seconds)| number.parse::<u64>().ok()?.checked_mul(seconds));
    let seconds = seconds.filter(|seconds| (1..=LONGEST).contains(seconds));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| "right is a number and s, m, h or d, such as 90s or 1h; a week at most".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_number_and_a_unit_up_to_a_week() {
        assert_eq!(["90s", "10m", "2h", "7d"].map(|text| length(text).unwrap().as_secs()), [90, 600, 7200, 604_800]);
        for wrong in ["", "90", "h", "-1h", "0s", "8d", "1w", "99999999999999999999d", "1 h"] {
            assert!(length(wrong).unwrap_err().contains("90s"), "{wrong}");
        }
    }

    #[test]
    fn a_scope_has_three_parts() {
        for right in ["acme|azure_devops|dev.azure.com", "*|discord|bot-1f2e3d4c5b6a7988", "acme|webhook|7#seats"] {
            assert_eq!(scope(right).as_deref(), Ok(right));
        }
        for wrong in ["acme", "acme|discord", "acme||7", "acme|discord|7|8"] {
            assert!(scope(wrong).is_err(), "{wrong}");
        }
    }
}
