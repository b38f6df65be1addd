//! What has changed beside the jobs: replicas that started, and migrations. What people did is in
//! the audit log.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::error::StoreError;
use super::handle::Store;
use super::sql::query;

/// A replica that started.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StartedReplica {
    pub id: i64,
    pub version: String,
    pub host: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub started_at: OffsetDateTime,
}

/// A migration of the schema.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AppliedMigration {
    pub version: i32,
    pub name: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub applied_at: OffsetDateTime,
}

/// Ids are in the order of the starts.
pub(super) const STARTED: &str = "
    SELECT id, version, host, started_at FROM (
        SELECT id, version, host, started_at FROM replicas ORDER BY id DESC LIMIT $2) newest
    WHERE started_at >= $1 ORDER BY id DESC";
/// Refinery stores the time as text.
const MIGRATIONS: &str =
    "SELECT version, name, applied_on FROM refinery_schema_history ORDER BY version DESC LIMIT $1";

impl Store {
    /// Returns those of the newest `limit` replicas that have started since `since`, the last
    /// first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn started_replicas(
        &self,
        since: OffsetDateTime,
        limit: i64,
    ) -> Result<Vec<StartedReplica>, StoreError> {
        let rows = query(&self.client().await?, STARTED, &[&since, &limit]).await?;
        rows.iter()
            .map(|row| {
                Ok(StartedReplica {
                    id: row.try_get("id")?,
                    version: row.try_get("version")?,
                    host: row.try_get("host")?,
                    started_at: row.try_get("started_at")?,
                })
            })
            .collect()
    }

    /// Returns those of the newest `limit` migrations that were applied since `since`, the last
    /// first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn applied_migrations(
        &self,
        since: OffsetDateTime,
        limit: i64,
    ) -> Result<Vec<AppliedMigration>, StoreError> {
        let mut applied = Vec::new();
        for row in query(&self.client().await?, MIGRATIONS, &[&limit]).await? {
            let at: &str = row.try_get("applied_on")?;
            let applied_at = OffsetDateTime::parse(at, &Rfc3339)
                .map_err(|error| StoreError::Row(format!("the time of a migration: {error}")))?;
            if applied_at >= since {
                applied.push(AppliedMigration {
                    version: row.try_get("version")?,
                    name: row.try_get("name")?,
                    applied_at,
                });
            }
        }
        Ok(applied)
    }
}
