//! `dispatch keys`: counts sealed values by key, and reseals them with the first key.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde_json::json;

use super::connect;
use super::consent::Consent;
use super::output::{Output, plain, rendered, say};
use crate::app;
use crate::config::Links;
use crate::operations::{self, KeyCount, Resealed, Rotation, Unopened};

/// Count the sealed values by key, and reseal them with the keyring's first key
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    List(List),
    Rotate(Rotate),
}

/// Count the sealed values by table, column and key
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    links: Links,
}

/// Reseal every value with the keyring's first key while workers run; run again after an
/// interruption to continue
#[derive(Debug, Args)]
pub(super) struct Rotate {
    #[command(flatten)]
    links: Links,
    /// Rows read by one statement
    #[arg(long, default_value_t = 500, value_name = "ROWS", value_parser = clap::value_parser!(i64).range(1..=10_000))]
    batch: i64,
    #[command(flatten)]
    consent: Consent,
}

impl Keys {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Rotate(rotate) => rotate.run(output).await,
        }
    }
}

impl List {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (keyring, store) = (
            app::keyring(&self.links)?,
            connect::store(&self.links).await?,
        );
        let counts = operations::key_counts(&store, &keyring).await?;
        output.answer(
            &json!({"seals_with": keyring.first(), "values": counts}),
            || table(output, &counts),
        )?;
        say(&format!(
            "workers with this keyring seal new values with key {}",
            keyring.first()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

impl Rotate {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let (keyring, store) = (
            app::keyring(&self.links)?,
            connect::store(&self.links).await?,
        );
        let key = keyring.first().to_owned();
        self.consent
            .to(&format!("Reseal every value with key {key}?"))?;
        let progress = |column: Resealed, last: Option<&str>| {
            let Resealed {
                table,
                column,
                values,
            } = column;
            let so_far = last.map_or_else(String::new, |row| format!(" so far, up to row {row}"));
            say(&format!(
                "{table}.{column}: resealed {values} values{so_far}"
            ));
        };
        let actor = self.consent.actor();
        let rotation =
            operations::rotate_keys(&store, &keyring, &actor, self.batch, progress).await?;
        let Rotation {
            key,
            unopened,
            left,
            ..
        } = &rotation;
        output.answer(&json!(rotation), || {
            if *left == 0 {
                format!("every value is sealed with key {key}")
            } else {
                String::new()
            }
        })?;
        for Unopened {
            table,
            column,
            row,
            why,
        } in unopened
        {
            say(&format!(
                "{table}.{column} of row {row} is unchanged: {why}"
            ));
        }
        if *left > unopened.len() as u64 {
            say(&format!(
                "{left} values have other keys: a worker still seals with one; start all workers with {key} first, then retry"
            ));
        }
        Ok(if *left == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn table(output: Output, counts: &[KeyCount]) -> String {
    let mut table = output.table(&["table", "column", "key", "values", "in the keyring"]);
    for count in counts {
        table.add_row([
            Cell::new(count.table),
            Cell::new(count.column),
            Cell::new(plain(&count.key)),
            Cell::new(count.values),
            Cell::new(if count.known { "yes" } else { "no" }),
        ]);
    }
    rendered(table)
}
