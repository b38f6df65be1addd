//! Migrations of the schema (by refinery, under an advisory lock), and the roles that use it.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::audit::{Action, Actor, audit_on};
use super::error::StoreError;
use super::handle::Store;
use super::login::WorkerLogin;
use super::partitions;
use super::pool::on_connection;
use super::roles;
use super::sql::query_one;
use crate::tls_policy::Endpoint;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Admits one process at a time. The number is chosen for this project.
const LOCK: &str = "SELECT pg_advisory_lock(7264019, 0)";
const VERSION: &str =
    "SELECT coalesce(max(version), 0)::bigint AS version FROM refinery_schema_history";

/// Result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// Names of the applied migrations.
    pub applied: Vec<String>,
    /// Statements that this role may not run; an administrator runs them.
    pub left: Vec<String>,
}

/// Migrates the schema, grants the group roles their privileges, and creates the partitions of the
/// coming months whose locks are granted at once. Returns the names of the applied migrations.
///
/// # Errors
/// [`StoreError`] if Postgres refuses a statement; earlier migrations stay applied.
pub async fn migrate(endpoint: impl Into<Endpoint>) -> Result<Vec<String>, StoreError> {
    Ok(migrate_with(endpoint, None, None).await?.applied)
}

/// Migrates like [`migrate`], and creates a worker's login or changes its password. Each change
/// gets an audit row of `actor`.
///
/// # Errors
/// Errors of [`migrate`]; [`StoreError::Roles`] if the roles are missing and this role may not
/// create them: nothing is applied then.
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

async fn migrate_on(
    client: &mut Client,
    login: Option<&WorkerLogin>,
    actor: Option<&Actor>,
) -> Result<Migrated, StoreError> {
    roles::make_groups(client).await?;
    let report = embedded::migrations::runner().run_async(client).await?;
    let name =
        |migration: &refinery::Migration| format!("V{}__{}", migration.version(), migration.name());
    let applied: Vec<String> = report.applied_migrations().iter().map(name).collect();
    if let (Some(actor), false) = (actor, applied.is_empty()) {
        audit_on(
            client,
            actor,
            Action::Migrate,
            &Value::Null,
            &json!({"applied": applied}),
        )
        .await?;
    }
    let left = roles::grant(client).await?;
    partitions::make_missing(client).await?;
    if let Some(login) = login {
        login.make(client, actor).await?;
    }
    Ok(Migrated { applied, left })
}

fn newest() -> i64 {
    embedded::migrations::runner()
        .get_migrations()
        .iter()
        .map(|migration| i64::from(migration.version()))
        .max()
        .unwrap_or(0)
}

impl Store {
    /// Returns the version of the schema and the version that this program needs.
    ///
    /// # Errors
    /// [`StoreError`] if Postgres refuses the statement, for example because nothing was migrated
    /// yet.
    pub async fn schema_version(&self) -> Result<(i64, i64), StoreError> {
        let row = query_one(&self.client().await?, VERSION, &[]).await?;
        Ok((row.try_get("version")?, newest()))
    }

    /// Returns the version of the schema that this program was built for.
    #[must_use]
    pub fn needed_schema_version() -> i64 {
        newest()
    }
}
