//! The schema, by refinery, under an advisory lock.

use super::Store;
use super::error::StoreError;
use super::partitions;
use super::pool::connect;
use super::sql::query_one;
use crate::link::Endpoint;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// One process at a time; the number is this project's own.
const LOCK: &str = "SELECT pg_advisory_lock(7264019, 0)";
const VERSION: &str = "SELECT coalesce(max(version), 0)::bigint AS version FROM refinery_schema_history";

/// Brings the schema up to date and makes the partitions of the coming months, as far as their locks are had at once. Returns the
/// names of the migrations applied.
///
/// # Errors
/// [`StoreError`] where Postgres refuses; what was applied before stays.
pub async fn migrate(endpoint: impl Into<Endpoint>) -> Result<Vec<String>, StoreError> {
    let (mut client, connection) = connect(endpoint).await?;
    let work = async move {
        client.batch_execute(LOCK).await?;
        let report = embedded::migrations::runner().run_async(&mut client).await?;
        partitions::make_missing(&client).await?;
        Ok(report
            .applied_migrations()
            .iter()
            .map(|migration| format!("V{}__{}", migration.version(), migration.name()))
            .collect())
    };
    tokio::pin!(work, connection);
    tokio::select! {
        done = &mut work => done,
        lost = &mut connection => Err(lost.err().map_or(StoreError::ReadOnly, StoreError::Database)),
    }
}

fn newest() -> i64 {
    embedded::migrations::runner().get_migrations().iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0)
}

impl Store {
    /// The schema's version, and the one this program needs.
    ///
    /// # Errors
    /// [`StoreError`] where Postgres refuses, also where nothing was migrated yet.
    pub async fn schema_version(&self) -> Result<(i64, i64), StoreError> {
        let row = query_one(&self.client().await?, VERSION, &[]).await?;
        Ok((row.try_get("version")?, newest()))
    }
}
