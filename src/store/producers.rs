//! Registered producers, and what intake must know before it lets them in.

use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::Store;
use super::actions::Target;
use super::error::StoreError;
use super::sql::{execute, query, query_opt};
use crate::message::Producer;

/// Producers that are listed, at most.
const LISTED: i64 = 10_000;

/// The row of one name, or the rows after a name.
macro_rules! producers {
    ($rest:literal) => {
        concat!("SELECT name, sources, organizations, reply_queues, applications FROM producers ", $rest)
    };
}

pub(super) const ONE: &str = producers!("WHERE name = $1");
const ALL: &str = producers!("ORDER BY name LIMIT $1");
const LOCKED: &str = producers!("WHERE name = $1 FOR UPDATE");

const REGISTER: &str = "
    INSERT INTO producers (name, sources, organizations, reply_queues, applications) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (name) DO UPDATE SET sources = excluded.sources, organizations = excluded.organizations,
        reply_queues = excluded.reply_queues, applications = excluded.applications, changed_at = now()";

const REMOVE: &str = "DELETE FROM producers WHERE name = $1";

pub(super) const ORGANIZATION: &str = "SELECT true AS known FROM organizations WHERE slug = $1";

pub(super) const TENANT: &str = "SELECT source, organization FROM jobs WHERE id = $1";
pub(super) const TENANT_OF_KEY: &str = "
    SELECT jobs.source, jobs.organization FROM job_keys JOIN jobs ON jobs.id = job_keys.job_id
    WHERE job_keys.source = $1 AND job_keys.dedupe_key = $2";

/// Whose a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The source that its message named.
    pub source: String,
    /// The organization that it is for.
    pub organization: String,
}

/// What a registration changed, as the audit log has it: before, and now.
pub type Registration = Option<(Value, Value)>;

impl Store {
    /// The producer that publishes as this user of RabbitMQ.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn producer(&self, name: &str) -> Result<Option<Producer>, StoreError> {
        query_opt(&self.client().await?, ONE, &[&name]).await?.as_ref().map(producer).transpose()
    }

    /// All producers by name, 10,000 at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn producers(&self) -> Result<Vec<Producer>, StoreError> {
        query(&self.client().await?, ALL, &[&LISTED]).await?.iter().map(producer).collect()
    }

    /// Whether the tracker has an organization of this slug.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_organization(&self, slug: &str) -> Result<bool, StoreError> {
        Ok(query_opt(&self.client().await?, ORGANIZATION, &[&slug]).await?.is_some())
    }

    /// Whose a job is; `None` where there is no such job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tenant(&self, target: &Target) -> Result<Option<Tenant>, StoreError> {
        let client = self.client().await?;
        let row = match target {
            Target::Id(id) => query_opt(&client, TENANT, &[&id.0]).await?,
            Target::Key { source, dedupe_key } => query_opt(&client, TENANT_OF_KEY, &[source, dedupe_key]).await?,
        };
        let tenant = |row: Row| Ok(Tenant { source: row.try_get("source")?, organization: row.try_get("organization")? });
        row.map(tenant).transpose()
    }
}

/// Registers a producer, or replaces what the one of this name may name.
///
/// # Errors
/// [`StoreError`].
pub async fn register_producer(tx: &Transaction<'_>, new: &Producer) -> Result<Registration, StoreError> {
    let before = query_opt(tx, LOCKED, &[&new.name]).await?.as_ref().map(producer).transpose()?;
    if before.as_ref() == Some(new) {
        return Ok(None);
    }
    execute(tx, REGISTER, &[&new.name, &new.sources, &new.organizations, &new.reply_queues, &new.applications]).await?;
    Ok(Some((json!(before), json!(new))))
}

/// Removes a producer: what it publishes from now on is refused, what it has published goes on.
///
/// # Errors
/// [`StoreError`].
pub async fn remove_producer(tx: &Transaction<'_>, name: &str) -> Result<Registration, StoreError> {
    let Some(before) = query_opt(tx, LOCKED, &[&name]).await?.as_ref().map(producer).transpose()? else { return Ok(None) };
    execute(tx, REMOVE, &[&name]).await?;
    Ok(Some((json!(before), Value::Null)))
}

fn producer(row: &Row) -> Result<Producer, StoreError> {
    Ok(Producer {
        name: row.try_get("name")?,
        sources: row.try_get("sources")?,
        organizations: row.try_get("organizations")?,
        reply_queues: row.try_get("reply_queues")?,
        applications: row.try_get("applications")?,
    })
}
