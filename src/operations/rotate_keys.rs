//! Reseals every sealed value with the keyring's first key, while workers run.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::OperationError;
use crate::fault::chain;
use crate::secrets::{Keyring, SealedColumn};
use crate::store::{self, Action, Actor, Store};
use crate::tracker;

/// Rows of a page when counting.
const PAGE: i64 = 5000;
/// Passes over a column. A worker that still seals with another key may add values meanwhile.
const PASSES: usize = 3;

/// The sealed values of one column with one key.
#[derive(Debug, Serialize)]
pub struct KeyCount {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// Name of the key.
    pub key: String,
    /// Number of values.
    pub values: u64,
    /// Whether the keyring has the key.
    pub known: bool,
}

/// The resealed values of one column, so far or in all.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Resealed {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// Number of values.
    pub values: u64,
}

/// A value that could not be unsealed and is unchanged.
#[derive(Debug, Serialize)]
pub struct Unopened {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// Key of the row.
    pub row: String,
    /// The cause.
    pub why: String,
}

/// The result of a rotation.
#[derive(Debug, Serialize)]
pub struct Rotation {
    /// The key that seals from now on.
    pub key: String,
    /// The resealed values by column.
    pub resealed: Vec<Resealed>,
    /// Values that could not be unsealed.
    pub unopened: Vec<Unopened>,
    /// Values with other keys, those added meanwhile to finished columns included.
    pub left: u64,
}

/// Returns every column of sealed values.
pub fn sealed_columns() -> impl Iterator<Item = &'static SealedColumn> {
    tracker::SEALED.iter().chain(store::SEALED)
}

/// Counts the sealed values by table, column and key.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn key_counts(store: &Store, keyring: &Keyring) -> Result<Vec<KeyCount>, OperationError> {
    let mut counts = Vec::new();
    for column in sealed_columns() {
        counts.extend(count(store, keyring, column).await?);
    }
    Ok(counts)
}

/// Reseals every value, `batch` rows at a time. `progress` receives what was resealed so far:
/// with the last row after each page, without one after each column.
///
/// After an interruption, the audit row that is written first is the only one, and a repetition
/// continues.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn rotate_keys(
    store: &Store,
    keyring: &Keyring,
    actor: &Actor,
    batch: i64,
    progress: impl FnMut(Resealed, Option<&str>),
) -> Result<Rotation, OperationError> {
    let key = keyring.first().to_owned();
    store
        .audit(
            actor,
            Action::RotateKeys,
            &Value::Null,
            &json!({"key": key}),
        )
        .await?;
    let mut run = Run {
        store,
        keyring,
        batch,
        unopened: Vec::new(),
        progress,
    };
    let mut resealed = Vec::new();
    for column in sealed_columns() {
        let column = run.column(column).await?;
        (run.progress)(column, None);
        resealed.push(column);
    }
    let unopened = run.unopened;
    let left = key_counts(store, keyring)
        .await?
        .iter()
        .filter(|count| count.key != key)
        .map(|count| count.values)
        .sum();
    let done = json!({"key": key, "resealed": resealed});
    store
        .audit(actor, Action::RotatedKeys, &Value::Null, &done)
        .await?;
    Ok(Rotation {
        key,
        resealed,
        unopened,
        left,
    })
}

struct Run<'a, P> {
    store: &'a Store,
    keyring: &'a Keyring,
    batch: i64,
    unopened: Vec<Unopened>,
    progress: P,
}

impl<P: FnMut(Resealed, Option<&str>)> Run<'_, P> {
    /// Passes over a column until no value is left to reseal.
    async fn column(&mut self, column: &'static SealedColumn) -> Result<Resealed, OperationError> {
        let mut values = 0;
        for _ in 0..PASSES {
            let (resealed, failed) = self.pass(column).await?;
            values += resealed;
            if resealed == 0 || !failed.is_empty() {
                self.unopened.extend(failed);
                break;
            }
        }
        Ok(resealed(column, values))
    }

    async fn pass(
        &mut self,
        column: &'static SealedColumn,
    ) -> Result<(u64, Vec<Unopened>), OperationError> {
        let (store, keyring) = (self.store, self.keyring);
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
                (self.progress)(resealed(column, values), Some(&last));
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

const fn resealed(column: &'static SealedColumn, values: u64) -> Resealed {
    Resealed {
        table: column.table,
        column: column.column,
        values,
    }
}

async fn count(
    store: &Store,
    keyring: &Keyring,
    column: &'static SealedColumn,
) -> Result<Vec<KeyCount>, OperationError> {
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
    let count = |(key, values): (String, u64)| KeyCount {
        table: column.table,
        column: column.column,
        known: keyring.has(&key),
        key,
        values,
    };
    Ok(by_key.into_iter().map(count).collect())
}
