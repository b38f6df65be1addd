//! Headers of dead letters. They are sealed as a whole, since they may contain secrets of
//! producers.
//!
//! **Invariant:** of a dead letter's headers, only those of the allow-list are stored unsealed.
//!
//! A worker of an earlier version, which may run at the same time, stores all of them unsealed:
//! [`Store::seal_headers`] seals them later.

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query};
use crate::message::allowed_headers;
use crate::secrets::{Keyring, Place};

/// Rows of one statement; a header table has at most 8 KiB.
const BATCH: i64 = 100;

pub(super) const UNSEALED: &str = "
    SELECT id, headers FROM dead_letters WHERE sealed_headers IS NULL ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED";

const SEAL: &str = "
    UPDATE dead_letters SET headers = given.allowed, sealed_headers = given.sealed
    FROM unnest($1::bigint[], $2::json[], $3::text[]) AS given (id, allowed, sealed) WHERE dead_letters.id = given.id";

/// Returns all headers of a dead letter, sealed for its row.
pub(super) fn seal(keyring: &Keyring, row: &str, headers: &Value) -> String {
    keyring.seal(place(row), headers.to_string().as_bytes())
}

/// Returns all headers of a dead letter as received, from the columns `sealed_headers` and
/// `headers` of its row.
pub(super) fn received(keyring: &Keyring, id: &str, row: &Row) -> Result<Value, StoreError> {
    let Some(sealed) = row.try_get::<_, Option<&str>>("sealed_headers")? else {
        let Json(headers) = row.try_get("headers")?;
        return Ok(headers);
    };
    let text = keyring.open(place(id), sealed)?;
    serde_json::from_slice(&text)
        .map_err(|_| StoreError::Row(format!("the headers of dead letter {id} are not JSON")))
}

const fn place(row: &str) -> Place<'_> {
    Place {
        table: "dead_letters",
        column: "sealed_headers",
        row,
    }
}

impl Store {
    /// Seals the headers of some dead letters that a worker of an earlier version has stored.
    /// Returns whether there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn seal_headers(&self, keyring: &Keyring) -> Result<bool, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let (mut ids, mut allowed, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
        for row in query(&tx, UNSEALED, &[&BATCH]).await? {
            let (id, Json(headers)) = (
                row.try_get::<_, i64>("id")?,
                row.try_get::<_, Json<Value>>("headers")?,
            );
            sealed.push(seal(keyring, &id.to_string(), &headers));
            allowed.push(Json(allowed_headers(&headers)));
            ids.push(id);
        }
        if !ids.is_empty() {
            execute(&tx, SEAL, &[&ids, &allowed, &sealed]).await?;
            tx.commit().await?;
        }
        Ok(i64::try_from(ids.len()) == Ok(BATCH))
    }
}
