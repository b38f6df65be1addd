//! Tokens of the console and its API.

use deadpool_postgres::Transaction;
use schemars::JsonSchema;
use serde::Serialize;
use time::{Duration, OffsetDateTime};
use tokio_postgres::Row;

use super::audit::Role;
use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query, query_one, query_opt};

/// Maximum number of tokens in a list, and of tokens that are not revoked.
pub const TOKENS: i64 = 1000;

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ApiToken {
    /// Its number.
    pub id: i64,
    /// The name of the person or program.
    pub name: String,
    /// What it permits.
    pub role: Role,
    /// The source of a producer's token.
    pub source: Option<String>,
    /// The organizations that it may see; `None`: all.
    pub organizations: Option<Vec<String>>,
    /// Who created it.
    pub created_by: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: OffsetDateTime,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub expires_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub revoked_at: Option<OffsetDateTime>,
    /// To the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub last_used_at: Option<OffsetDateTime>,
    /// Whether its last use was recorded within a minute.
    #[serde(skip)]
    pub was_used_lately: bool,
    /// Whether it is neither revoked nor over, by the database's clock.
    pub is_valid: bool,
}

/// A token to create.
#[derive(Debug, Clone)]
pub struct NewApiToken {
    /// As [`ApiToken::name`].
    pub name: String,
    /// As [`ApiToken::role`].
    pub role: Role,
    /// As [`ApiToken::source`].
    pub source: Option<String>,
    /// As [`ApiToken::organizations`].
    pub organizations: Option<Vec<String>>,
    /// SHA-256 of the token.
    pub sha256: [u8; 32],
    /// How long it is valid.
    pub seconds: f64,
}

macro_rules! columns {
    () => {
        "id, name, role, source, organizations, created_by, created_at, expires_at, revoked_at, last_used_at,
        coalesce(last_used_at > now() - interval '1 minute', false) AS was_used_lately,
        revoked_at IS NULL AND expires_at > now() AS is_valid"
    };
}

const CREATE: &str = concat!(
    "INSERT INTO api_tokens (name, sha256, role, source, organizations, created_by, expires_at)
    SELECT $1, $2, $3, $4, $5, $6, now() + $7 * interval '1 second'
    WHERE NOT EXISTS (SELECT FROM api_tokens WHERE name = $1 AND revoked_at IS NULL)
        AND (SELECT count(*) FROM (SELECT FROM api_tokens WHERE revoked_at IS NULL LIMIT $8) present) < $8
    RETURNING ",
    columns!()
);
pub(super) const BY_SECRET: &str =
    concat!("SELECT ", columns!(), " FROM api_tokens WHERE sha256 = $1");
pub(super) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM api_tokens WHERE id = $1");
pub(super) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM api_tokens ORDER BY id DESC LIMIT $1"
);
const REVOKE: &str = concat!(
    "UPDATE api_tokens SET revoked_at = now() WHERE name = $1 AND revoked_at IS NULL RETURNING ",
    columns!()
);
/// At most once a minute, so that a busy client does not write a row for each request.
const USED: &str = "
    UPDATE api_tokens SET last_used_at = now()
    WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')";

/// Tokens that ended before `$1`, at most `$2`.
const FORGET: &str = "
    DELETE FROM api_tokens WHERE id = ANY (ARRAY(
        SELECT id FROM api_tokens WHERE expires_at < $1 OR revoked_at < $1 LIMIT $2))";
/// How long a token is listed after its end.
const LISTED_FOR: Duration = Duration::days(90);

/// Creates a token. `None` if one with the name is in use, or if there are [`TOKENS`].
///
/// # Errors
/// [`StoreError`].
pub async fn create_token(
    tx: &Transaction<'_>,
    new: &NewApiToken,
    who: &str,
) -> Result<Option<ApiToken>, StoreError> {
    let (digest, role) = (new.sha256.as_slice(), new.role.word());
    query_opt(
        tx,
        CREATE,
        &[
            &new.name,
            &digest,
            &role,
            &new.source,
            &new.organizations,
            &who,
            &new.seconds,
            &TOKENS,
        ],
    )
    .await?
    .as_ref()
    .map(token)
    .transpose()
}

/// Revokes the token with this name, if there is one.
///
/// # Errors
/// [`StoreError`].
pub async fn revoke_token(
    tx: &Transaction<'_>,
    name: &str,
) -> Result<Option<ApiToken>, StoreError> {
    query_opt(tx, REVOKE, &[&name])
        .await?
        .as_ref()
        .map(token)
        .transpose()
}

impl Store {
    /// Returns the token with this SHA-256, valid or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_by_secret(&self, sha256: &[u8; 32]) -> Result<Option<ApiToken>, StoreError> {
        query_opt(&self.client().await?, BY_SECRET, &[&sha256.as_slice()])
            .await?
            .as_ref()
            .map(token)
            .transpose()
    }

    /// Returns the token with this number, valid or not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token(&self, id: i64) -> Result<Option<ApiToken>, StoreError> {
        query_opt(&self.client().await?, BY_ID, &[&id])
            .await?
            .as_ref()
            .map(token)
            .transpose()
    }

    /// Returns the tokens, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        query(&self.client().await?, LIST, &[&TOKENS])
            .await?
            .iter()
            .map(token)
            .collect()
    }

    /// Records that a token was used.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token_used(&self, id: i64) -> Result<(), StoreError> {
        execute(&self.client().await?, USED, &[&id]).await.map(drop)
    }

    /// Deletes tokens that ended more than 90 days ago, a bounded number at a time. Returns whether
    /// there may be more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_tokens(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        let before = now - LISTED_FOR;
        let deleted = execute(&self.client().await?, FORGET, &[&before, &TOKENS]).await?;
        Ok(i64::try_from(deleted) == Ok(TOKENS))
    }

    /// Returns the database's clock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn now(&self) -> Result<OffsetDateTime, StoreError> {
        let row = query_one(&self.client().await?, "SELECT now() AS now", &[]).await?;
        Ok(row.try_get("now")?)
    }
}

fn token(row: &Row) -> Result<ApiToken, StoreError> {
    let word: &str = row.try_get("role")?;
    let role = Role::OF_TOKENS.into_iter().find(|role| role.word() == word);
    Ok(ApiToken {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: role.ok_or_else(|| StoreError::Row(format!("the role `{word}` of a token")))?,
        source: row.try_get("source")?,
        organizations: row.try_get("organizations")?,
        created_by: row.try_get("created_by")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
        last_used_at: row.try_get("last_used_at")?,
        was_used_lately: row.try_get("was_used_lately")?,
        is_valid: row.try_get("is_valid")?,
    })
}
