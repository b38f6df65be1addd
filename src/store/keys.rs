//! Keys at rest: returns the key of every sealed value, and reseals values with the first key
//! while workers run.
//!
//! **Invariant:** resealing a value changes nothing else of its row, and replaces only the value
//! that was opened.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query};
use crate::message::{INTERACTION_TOKEN, interaction_of};
use crate::secrets::{Keyring, Place, RowId, SealedColumn, SecretError, Within, key_of};

/// The sealed columns of the engine's tables.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::plain("jobs", "sealed_payload", RowId::Uuid),
    SealedColumn {
        table: "jobs",
        column: INTERACTION_TOKEN,
        id: RowId::Uuid,
        within: Some(Within {
            json: "payload",
            pattern: r#"%"sealed\_token":"v1.%"#,
            find: |payload| Some(interaction_of(payload)?.sealed_token),
        }),
    },
    SealedColumn::plain("dead_letters", "sealed_body", RowId::Number),
    SealedColumn::plain("dead_letters", "sealed_headers", RowId::Number),
];

/// Values in one statement and one transaction: some are as long as a message.
const CHUNK: usize = 16;

/// Result of [`Store::reseal`].
#[derive(Debug, Default)]
pub struct Resealed {
    /// Number of resealed values.
    pub values: u64,
    /// Rows that another transaction has locked.
    pub skipped: Vec<String>,
    /// Rows whose value cannot be opened, and why.
    pub unopened: Vec<(String, SecretError)>,
}

/// A page of a table's rows.
#[derive(Debug, Default)]
pub struct SealedPage {
    /// Id of the last row; the next page begins after it. `None` if the page is empty.
    pub last: Option<String>,
    /// The rows with a value, each with the id of its key.
    pub rows: Vec<(String, String)>,
}

/// The SQL for a column, built from its static names only.
struct Sql {
    /// The type of `id`.
    id: &'static str,
    /// A value below all ids.
    below_all: &'static str,
    /// The text that is or contains the sealed value.
    stored: String,
    /// The id of its key; empty if only the text itself can tell, null if there is no value.
    key: String,
    /// Sets the value to `given.new`.
    set: String,
    /// Tests whether the row `t` still has the value `given.old`.
    is_old: String,
}

impl Sql {
    fn of(column: &SealedColumn) -> Self {
        let (id, below_all) = match column.id {
            RowId::Number => ("bigint", "0"),
            RowId::Uuid => ("uuid", "00000000-0000-0000-0000-000000000000"),
        };
        let name = column.column;
        match &column.within {
            None => Self {
                id,
                below_all,
                stored: name.to_owned(),
                // Reads only the first bytes of a long value.
                key: format!("split_part(substr({name}, 1, 32), '.', 2)"),
                set: format!("{name} = given.new"),
                is_old: format!("t.{name} = given.old"),
            },
            // Compared as text, because Postgres' operators on json refuse a text that contains
            // `\u0000`.
            Some(Within { json, pattern, .. }) => Self {
                id,
                below_all,
                stored: format!("{json}::text"),
                key: format!("CASE WHEN {json}::text LIKE '{pattern}' THEN '' END"),
                set: format!("{json} = replace(t.{json}::text, given.old, given.new)::json"),
                is_old: format!("position(given.old IN t.{json}::text) > 0"),
            },
        }
    }

    /// Returns the statement that reads values by the ids of their rows.
    fn read(&self, table: &str, lock: &str) -> String {
        let Self { id, stored, .. } = self;
        format!(
            "SELECT id::text AS id, {stored} AS stored FROM {table} t WHERE t.id = ANY($1::text[]::{id}[]) AND {stored} IS NOT NULL {lock}"
        )
    }
}

fn find(column: &SealedColumn, row: &Row) -> Result<Option<String>, StoreError> {
    let stored: &str = row.try_get("stored")?;
    Ok(column
        .within
        .map_or_else(|| Some(stored.to_owned()), |within| (within.find)(stored)))
}

impl Store {
    /// Returns the sealed values of a column in at most `limit` rows after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sealed_page(
        &self,
        of: &SealedColumn,
        after: Option<&str>,
        limit: i64,
    ) -> Result<SealedPage, StoreError> {
        let (table, sql) = (of.table, Sql::of(of));
        let Sql {
            id, below_all, key, ..
        } = &sql;
        // `t.id`, because `id` would be the text.
        let page_sql = format!(
            "SELECT id::text AS id, {key} AS key FROM {table} t WHERE t.id > $1::text::{id} ORDER BY t.id LIMIT $2"
        );
        let after = after.unwrap_or(below_all);
        let client = self.client().await?;
        let mut page = SealedPage::default();
        let mut unsure = Vec::new();
        for row in query(&client, &page_sql, &[&after, &limit]).await? {
            let row_id: String = row.try_get("id")?;
            match row.try_get::<_, Option<String>>("key")? {
                Some(key) if key.is_empty() => unsure.push(row_id.clone()),
                Some(key) => page.rows.push((row_id.clone(), key)),
                None => {}
            }
            page.last = Some(row_id);
        }
        let read = sql.read(table, "");
        for ids in unsure.chunks(CHUNK) {
            for row in query(&client, &read, &[&ids]).await? {
                if let Some(key) = find(of, &row)?.as_deref().and_then(key_of) {
                    page.rows.push((row.try_get("id")?, key.to_owned()));
                }
            }
        }
        Ok(page)
    }

    /// Reseals the values of these rows with the first key, a few in a transaction. A row that is
    /// locked is skipped; with `patient`, each row is waited for, one at a time.
    ///
    /// # Errors
    /// [`StoreError`]; values resealed before the error stay so.
    pub async fn reseal(
        &self,
        keyring: &Keyring,
        of: &SealedColumn,
        ids: &[String],
        patient: bool,
    ) -> Result<Resealed, StoreError> {
        let mut done = Resealed::default();
        for ids in ids.chunks(if patient { 1 } else { CHUNK }) {
            self.reseal_few(keyring, of, ids, patient, &mut done)
                .await?;
        }
        Ok(done)
    }

    async fn reseal_few(
        &self,
        keyring: &Keyring,
        of: &SealedColumn,
        ids: &[String],
        patient: bool,
        done: &mut Resealed,
    ) -> Result<(), StoreError> {
        let (table, sql) = (of.table, Sql::of(of));
        let Sql {
            id, set, is_old, ..
        } = &sql;
        let lock = if patient {
            "ORDER BY t.id FOR NO KEY UPDATE"
        } else {
            "ORDER BY t.id FOR NO KEY UPDATE SKIP LOCKED"
        };
        let write = format!(
            "UPDATE {table} t SET {set} FROM unnest($1::text[], $2::text[], $3::text[]) AS given (id, old, new)
             WHERE t.id = given.id::{id} AND {is_old}"
        );
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let mut found: BTreeMap<String, Option<String>> = BTreeMap::new();
        for row in query(&tx, &sql.read(table, lock), &[&ids]).await? {
            found.insert(row.try_get("id")?, find(of, &row)?);
        }
        if !patient {
            done.skipped
                .extend(ids.iter().filter(|id| !found.contains_key(*id)).cloned());
        }
        let (mut rows, mut old, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (row, sealed) in found {
            let Some(sealed) = sealed.filter(|sealed| key_of(sealed) != Some(keyring.first()))
            else {
                continue;
            };
            let place = Place {
                table,
                column: of.column,
                row: &row,
            };
            match keyring.open(place, &sealed) {
                Ok(plain) => {
                    new.push(keyring.seal(place, &plain));
                    old.push(sealed);
                    rows.push(row);
                }
                Err(error) => done.unopened.push((row, error)),
            }
        }
        done.values += execute(&tx, &write, &[&rows, &old, &new]).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Returns the newest row with a value among the `within` newest rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn newest_sealed(
        &self,
        of: &SealedColumn,
        within: i64,
    ) -> Result<Option<String>, StoreError> {
        let (table, Sql { key, .. }) = (of.table, Sql::of(of));
        let sql = format!(
            "SELECT newest.id::text AS id FROM (SELECT t.id, {key} AS key FROM {table} t ORDER BY t.id DESC LIMIT $1) newest
             WHERE newest.key IS NOT NULL ORDER BY newest.id DESC LIMIT 1"
        );
        let rows = query(&self.client().await?, &sql, &[&within]).await?;
        Ok(rows.first().map(|row| row.try_get("id")).transpose()?)
    }

    /// Tries to open the values of these rows. Returns the rows whose value cannot be opened, and
    /// why.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn try_open(
        &self,
        keyring: &Keyring,
        of: &SealedColumn,
        ids: &[String],
    ) -> Result<Vec<(String, SecretError)>, StoreError> {
        let client = self.client().await?;
        let mut unopened = Vec::new();
        for row in query(&client, &Sql::of(of).read(of.table, ""), &[&ids]).await? {
            let id: String = row.try_get("id")?;
            let Some(sealed) = find(of, &row)? else {
                continue;
            };
            let opened = keyring.open(
                Place {
                    table: of.table,
                    column: of.column,
                    row: &id,
                },
                &sealed,
            );
            unopened.extend(opened.err().map(|error| (id.clone(), error)));
        }
        Ok(unopened)
    }
}
