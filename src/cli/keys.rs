//! `dispatch keys`: counts sealed values by key, and reseals them with the first key.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Cell;
use serde::Serialize;
use serde_json::{Value, json};

use super::connect;
use super::consent::Consent;
use super::output::{Output, plain, rendered, say};
use crate::app;
use crate::config::Links;
use crate::fault::chain;
use crate::secrets::{Keyring, SealedColumn};
use crate::store::{self, Store};
use crate::tracker;

/// Rows of a page when counting.
const PAGE: i64 = 5000;
/// Passes over a column. A worker that still seals with another key may add values meanwhile.
const PASSES: usize = 3;

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

#[derive(Debug, Serialize)]
struct Count {
    table: &'static str,
    column: &'static str,
    key: String,
    values: u64,
    /// Whether the keyring has the key.
    known: bool,
}

/// A value that could not be unsealed and is unchanged.
#[derive(Debug, Serialize)]
struct Unopened {
    table: &'static str,
    column: &'static str,
    row: String,
    why: String,
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
        let mut counts = Vec::new();
        for column in columns() {
            counts.extend(count(&store, &keyring, column).await?);
        }
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
        let actor = self.consent.actor();
        // After an interrupted rotation, this is its only audit row.
        store
            .audit(
                &actor,
                "keys.rotate",
                None,
                &Value::Null,
                &json!({"key": key}),
            )
            .await?;
        let (mut resealed, mut unopened) = (Vec::new(), Vec::new());
        for column in columns() {
            let values = self.reseal(&store, &keyring, column, &mut unopened).await?;
            say(&format!(
                "{}.{}: resealed {values} values",
                column.table, column.column
            ));
            resealed
                .push(json!({"table": column.table, "column": column.column, "values": values}));
        }
        let left = self.left(&store, &keyring).await?;
        store
            .audit(
                &actor,
                "keys.rotated",
                None,
                &Value::Null,
                &json!({"key": key, "resealed": resealed}),
            )
            .await?;
        output.answer(
            &json!({"key": key, "resealed": resealed, "unopened": unopened, "left": left}),
            || {
                if left == 0 {
                    format!("every value is sealed with key {key}")
                } else {
                    String::new()
                }
            },
        )?;
        for Unopened {
            table,
            column,
            row,
            why,
        } in &unopened
        {
            say(&format!(
                "{table}.{column} of row {row} is unchanged: {why}"
            ));
        }
        if left > unopened.len() as u64 {
            say(&format!(
                "{left} values have other keys: a worker still seals with one; start all workers with {key} first, then retry"
            ));
        }
        Ok(if left == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// Counts values with other keys, including those added meanwhile to columns that were already
    /// resealed.
    async fn left(&self, store: &Store, keyring: &Keyring) -> anyhow::Result<u64> {
        let mut left = 0;
        for column in columns() {
            let counts = count(store, keyring, column).await?;
            left += counts
                .iter()
                .filter(|count| count.key != keyring.first())
                .map(|count| count.values)
                .sum::<u64>();
        }
        Ok(left)
    }

    /// Passes over a column until no value is left to reseal. Returns the number of resealed
    /// values.
    async fn reseal(
        &self,
        store: &Store,
        keyring: &Keyring,
        column: &'static SealedColumn,
        unopened: &mut Vec<Unopened>,
    ) -> anyhow::Result<u64> {
        let mut values = 0;
        for _ in 0..PASSES {
            let (resealed, failed) = self.pass(store, keyring, column).await?;
            values += resealed;
            if resealed == 0 || !failed.is_empty() {
                unopened.extend(failed);
                break;
            }
        }
        Ok(values)
    }

    async fn pass(
        &self,
        store: &Store,
        keyring: &Keyring,
        column: &'static SealedColumn,
    ) -> anyhow::Result<(u64, Vec<Unopened>)> {
        let (mut values, mut skipped, mut failed, mut after) = (0, Vec::new(), Vec::new(), None);
        loop {
            let page = store
                .sealed_page(column, after.as_deref(), self.batch)
                .await?;
            let old: Vec<String> = page
                .rows
                .into_iter()
                .filter(|(_, key)| key != keyring.first())
                .map(|(row, _)| row)
                .collect();
            let done = store.reseal(keyring, column, &old, false).await?;
            values += done.values;
            skipped.extend(done.skipped);
            failed.extend(done.unopened);
            let Some(last) = page.last else { break };
            if done.values > 0 {
                say(&format!(
                    "{}.{}: resealed {values} values so far, up to row {last}",
                    column.table, column.column
                ));
            }
            after = Some(last);
        }
        let done = store.reseal(keyring, column, &skipped, true).await?;
        failed.extend(done.unopened);
        let unopened = |(row, why)| Unopened {
            table: column.table,
            column: column.column,
            row,
            why: chain(&why),
        };
        Ok((
            values + done.values,
            failed.into_iter().map(unopened).collect(),
        ))
    }
}

/// Returns every column of sealed values.
pub(super) fn columns() -> impl Iterator<Item = &'static SealedColumn> {
    tracker::SEALED.iter().chain(store::SEALED)
}

async fn count(
    store: &Store,
    keyring: &Keyring,
    column: &'static SealedColumn,
) -> anyhow::Result<Vec<Count>> {
    let mut by_key: BTreeMap<String, u64> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.sealed_page(column, after.as_deref(), PAGE).await?;
        for (_, key) in page.rows {
            *by_key.entry(key).or_default() += 1;
        }
        let Some(last) = page.last else { break };
        after = Some(last);
    }
    let count = |(key, values): (String, u64)| {
        let known = keyring.has(&key);
        Count {
            table: column.table,
            column: column.column,
            key,
            values,
            known,
        }
    };
    Ok(by_key.into_iter().map(count).collect())
}

fn table(output: Output, counts: &[Count]) -> String {
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
