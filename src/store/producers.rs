//! Registered producers, and what intake must know to accept their messages.

use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use tokio_postgres::Row;

use super::actions::Target;
use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query, query_opt};
use crate::job::JobId;
use crate::message::Producer;

/// Maximum number of producers in a list.
const LISTED: i64 = 10_000;

/// Selects the row of one name, or all rows by name.
macro_rules! producers {
    ($rest:literal) => {
        concat!(
            "SELECT name, sources, organizations, reply_queues, applications FROM producers ",
            $rest
        )
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

const KNOWN_KEY: &str = "SELECT job_id, digest FROM job_keys WHERE source = $1 AND dedupe_key = $2 AND job_id IS NOT NULL";

/// The source and the organization of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// The source in its message.
    pub source: String,
    /// Its organization.
    pub organization: String,
}

/// The change of a registration for the audit log: before and after; `None` if nothing has
/// changed.
pub type Registration = Option<(Value, Value)>;

impl Store {
    /// Returns the producer that publishes as this user of RabbitMQ.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn producer(&self, name: &str) -> Result<Option<Producer>, StoreError> {
        query_opt(&self.client().await?, ONE, &[&name])
            .await?
            .as_ref()
            .map(producer)
            .transpose()
    }

    /// Returns the producers by name, at most 10,000.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn producers(&self) -> Result<Vec<Producer>, StoreError> {
        query(&self.client().await?, ALL, &[&LISTED])
            .await?
            .iter()
            .map(producer)
            .collect()
    }

    /// Returns whether the tracker has an organization with this slug.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_organization(&self, slug: &str) -> Result<bool, StoreError> {
        Ok(query_opt(&self.client().await?, ORGANIZATION, &[&slug])
            .await?
            .is_some())
    }

    /// Returns the job that has this key, and the digest of its message.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_key(
        &self,
        source: &str,
        dedupe_key: &str,
    ) -> Result<Option<(JobId, Vec<u8>)>, StoreError> {
        let row = query_opt(&self.client().await?, KNOWN_KEY, &[&source, &dedupe_key]).await?;
        let known = |row: Row| Ok((JobId(row.try_get("job_id")?), row.try_get("digest")?));
        row.map(known).transpose()
    }

    /// Returns the tenant of a job; `None` if there is no such job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tenant(&self, target: &Target) -> Result<Option<Tenant>, StoreError> {
        let client = self.client().await?;
        let row = match target {
            Target::Id(id) | Target::Version { id, .. } => {
                query_opt(&client, TENANT, &[&id.0]).await?
            }
            Target::Key { source, dedupe_key } => {
                query_opt(&client, TENANT_OF_KEY, &[source, dedupe_key]).await?
            }
        };
        let tenant = |row: Row| {
            Ok(Tenant {
                source: row.try_get("source")?,
                organization: row.try_get("organization")?,
            })
        };
        row.map(tenant).transpose()
    }
}

/// Registers a producer, or replaces what the registered one may use.
///
/// # Errors
/// [`StoreError`].
pub async fn register_producer(
    tx: &Transaction<'_>,
    new: &Producer,
) -> Result<Registration, StoreError> {
    let before = query_opt(tx, LOCKED, &[&new.name])
        .await?
        .as_ref()
        .map(producer)
        .transpose()?;
    if before.as_ref() == Some(new) {
        return Ok(None);
    }
    execute(
        tx,
        REGISTER,
        &[
            &new.name,
            &new.sources,
            &new.organizations,
            &new.reply_queues,
            &new.applications,
        ],
    )
    .await?;
    Ok(Some((json!(before), json!(new))))
}

/// Removes a producer. What it publishes from now on is refused; its jobs continue.
///
/// # Errors
/// [`StoreError`].
pub async fn remove_producer(tx: &Transaction<'_>, name: &str) -> Result<Registration, StoreError> {
    let Some(before) = query_opt(tx, LOCKED, &[&name])
        .await?
        .as_ref()
        .map(producer)
        .transpose()?
    else {
        return Ok(None);
    };
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
