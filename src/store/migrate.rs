//! The schema, by refinery, under an advisory lock, and after it the roles that work with it.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::Store;
use super::actions::{Actor, audit_on};
use super::error::StoreError;
use super::login::WorkerLogin;
use super::partitions;
use super::pool::on_connection;
use super::roles;
use super::sql::query_one;
use crate::tls_policy::Endpoint;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// One process at a time; the number is this project's own.
const LOCK: &str = "SELECT pg_advisory_lock(7264019, 0)";
const VERSION: &str = "SELECT coalesce(max(version), 0)::bigint AS version FROM refinery_schema_history";

/// What a migration has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The names of the migrations applied.
    pub applied: Vec<String>,
    /// Statements that this role may not run, for an administrator.
    pub left: Vec<String>,
}

/// Brings the schema up to date, grants the groups of roles their rights, and makes the partitions of the coming months, as far as
/// their locks are had at once. Returns the names of the migrations applied.
///
/// # Errors
/// [`StoreError`] where Postgres refuses; what was applied before stays.
pub async fn migrate(endpoint: impl Into<Endpoint>) -> Result<Vec<String>, StoreError> {
    Ok(migrate_with(endpoint, None, None).await?.applied)
}

/// As [`migrate`], and makes a worker's login, or gives it another password. What was changed has its audit rows, by `actor`.
///
/// # Errors
/// As [`migrate`]; [`StoreError::Roles`] where the roles are missing and this one may not make them: nothing is applied then.
pub async fn migrate_with(
    endpoint: impl Into<Endpoint>,
    login: Option<&WorkerLogin>,
    actor: Option<&Actor>,
) -> Result<Migrated, StoreError> {
    on_connection(endpoint, async |client: &mut Client| {
        client.batch_execute(LOCK).await?;
        migrate_on(client, login, actor).await
    })
    .await
}

async fn migrate_on(client: &mut Client, login: Option<&WorkerLogin>, actor: Option<&Actor>) -> Result<Migrated, StoreError> {
    roles::make_groups(client).await?;
    let report = embedded::migrations::runner().run_async(client).await?;
    let name = |migration: &refinery::Migration| format!("V{}__{}", migration.version(), migration.name());
    let applied: Vec<String> = report.applied_migrations().iter().map(name).collect();
    if let (Some(actor), false) = (actor, applied.is_empty()) {
        audit_on(client, actor, "migrate", &Value::Null, &json!({"applied": applied})).await?;
    }
    let left = roles::grant(client).await?;
    partitions::make_missing(client).await?;
    if let Some(login) = login {
        login.make(client, actor).await?;
    }
    Ok(Migrated { applied, left })
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
