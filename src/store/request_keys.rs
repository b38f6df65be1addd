//! The answers to requests that changed something, kept for a day under the key that the client
//! chose (`Idempotency-Key`). The row is written in the transaction of the change, so a request
//! that is sent twice at the same time changes something once.

use deadpool_postgres::GenericClient;
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Json;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query_opt};

/// The key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The id of the token that it belongs to.
    pub token: i64,
    /// 1 to 64 characters.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub digest: [u8; 32],
}

/// The kept answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptAnswer {
    /// Whether the key was used for the same request.
    pub is_same_request: bool,
    /// The state before the change.
    pub before: Value,
    /// The state after it.
    pub after: Value,
}

const KEEP: &str =
    "INSERT INTO idempotency_keys (token, key, request, before, after) VALUES ($1, $2, $3, $4, $5)";
pub(super) const KEPT: &str = "
    SELECT request, before, after FROM idempotency_keys
    WHERE token = $1 AND key = $2 AND created_at > now() - interval '24 hours'";
/// At most `$2` keys that are older than `$1`.
pub(super) const FORGET: &str = "
    DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2))";
/// How long an answer is kept.
const KEEP_FOR: Duration = Duration::hours(24);
/// Maximum number of answers that one statement deletes.
const BATCH: i64 = 2_000;

/// Keeps the answer. If another request with the key is being carried out, this waits for it.
///
/// # Errors
/// [`StoreError::Repeated`] if the key was used before.
pub(super) async fn keep_answer<C: GenericClient>(
    on: &C,
    key: &RequestKey,
    before: &Value,
    after: &Value,
) -> Result<(), StoreError> {
    let digest = key.digest.as_slice();
    let (before, after) = (Json(before), Json(after));
    match execute(on, KEEP, &[&key.token, &key.key, &digest, &before, &after]).await {
        Err(StoreError::Database(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            Err(StoreError::Repeated)
        }
        kept => kept.map(drop),
    }
}

impl Store {
    /// Returns the answer that is kept under a key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn kept_answer(&self, key: &RequestKey) -> Result<Option<KeptAnswer>, StoreError> {
        let row = query_opt(&self.client().await?, KEPT, &[&key.token, &key.key]).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(KeptAnswer {
            is_same_request: row.try_get::<_, &[u8]>("request")? == key.digest,
            before: row.try_get::<_, Json<Value>>("before")?.0,
            after: row.try_get::<_, Json<Value>>("after")?.0,
        }))
    }

    /// Deletes answers that are older than a day, a bounded number at a time. Returns whether there
    /// may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_answers(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        let before = now - KEEP_FOR;
        let deleted = execute(&self.client().await?, FORGET, &[&before, &BATCH]).await?;
        Ok(i64::try_from(deleted) == Ok(BATCH))
    }
}
