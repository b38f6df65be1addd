//! `dispatch tracker import`: imports a document's organizations into the tables, in one
//! transaction and one import at a time. Rows are found by their natural keys and take the values
//! of the document; rows that it does not name stay unchanged. A statement writes only rows that
//! differ, so a repeated import changes, locks and counts nothing.

mod accounts;
mod check;
mod destinations;
mod groups;
mod identities;
mod names;
mod people;

use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Transaction};

use super::causes::{BEGIN_RELEASE, released};
use super::moved::ONE_AT_A_TIME;
use super::{ImportCounts, OrganizationDocument, TrackerDocument, TrackerFault};
use crate::secrets::Keyring;

/// The tables that an import writes to; each has a count, which may be 0.
const TABLES: [&str; 15] = [
    "destinations",
    "external_issues",
    "group_links",
    "identities",
    "integrations",
    "issue_groups",
    "organization_integrations",
    "organizations",
    "project_members",
    "projects",
    "subscriptions",
    "team_members",
    "teams",
    "user_emails",
    "users",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The numbers of added or changed rows, by table.
    pub counts: ImportCounts,
    /// The wait keys whose cause may have disappeared: `identity:ID` with changed tokens,
    /// `integration:ID@ORG` that was enabled, `destination:ID` that changed. Their jobs are
    /// released.
    pub gone: Vec<String>,
    /// The number of released jobs that are due at once.
    pub released: u64,
}

impl Imported {
    /// Returns whether the import changed anything.
    #[must_use]
    pub fn is_change(&self) -> bool {
        !self.gone.is_empty() || self.counts.values().any(|rows| *rows > 0)
    }

    /// Returns the details for the audit row: counts, no values.
    #[must_use]
    pub fn audited(&self) -> Value {
        json!({"rows": self.counts, "causes_gone": self.gone.len(), "jobs_released": self.released})
    }
}

/// Imports a document and, in the same transaction, releases the jobs whose cause for waiting may
/// have disappeared. If anything has changed, `audit` writes its row in that transaction too.
///
/// # Errors
/// [`TrackerFault::Document`] and [`TrackerFault::UnknownReference`] for an invalid document;
/// [`TrackerFault::Database`]; the errors of `audit`. On an error, nothing is changed.
pub async fn import<E: From<TrackerFault>>(
    client: &mut Client,
    keyring: &Keyring,
    document: &TrackerDocument,
    audit: impl AsyncFnOnce(&Transaction<'_>, &Imported) -> Result<(), E>,
) -> Result<Imported, E> {
    check::check(document)?;
    let tx = client.transaction().await.map_err(TrackerFault::from)?;
    let imported = import_in(&tx, keyring, document).await?;
    if imported.is_change() {
        audit(&tx, &imported).await?;
    }
    tx.commit().await.map_err(TrackerFault::from)?;
    Ok(imported)
}

async fn import_in(
    tx: &Transaction<'_>,
    keyring: &Keyring,
    document: &TrackerDocument,
) -> Result<Imported, TrackerFault> {
    tx.query_one(ONE_AT_A_TIME, &[]).await?;
    let counts = TABLES
        .iter()
        .map(|table| ((*table).to_owned(), 0))
        .collect();
    let mut import = Import {
        tx,
        keyring,
        counts,
        gone: Vec::new(),
    };
    import.all(document).await?;
    let Import { counts, gone, .. } = import;
    let mut jobs = 0;
    for cause in &gone {
        jobs += released(&tx.query_one(BEGIN_RELEASE, &[cause, &None::<i64>]).await?)?;
    }
    Ok(Imported {
        counts,
        gone,
        released: jobs,
    })
}

struct Import<'a> {
    tx: &'a Transaction<'a>,
    keyring: &'a Keyring,
    counts: ImportCounts,
    gone: Vec<String>,
}

/// An organization whose row exists.
struct Tenant<'a> {
    id: i64,
    document: &'a OrganizationDocument,
}

impl Import<'_> {
    async fn all(&mut self, document: &TrackerDocument) -> Result<(), TrackerFault> {
        self.users(&document.users).await?;
        self.integrations(&document.integrations).await?;
        let tenants = self.organizations(&document.organizations).await?;
        let accounts = self.known_accounts().await?;
        let people = self.known_people(document).await?;
        self.identities(&tenants).await?;
        self.installations(&tenants, &accounts).await?;
        self.teams(&tenants, &people).await?;
        self.projects(&tenants, &people, &accounts).await?;
        self.destinations(&tenants).await
    }

    async fn organizations<'d>(
        &mut self,
        documents: &'d [OrganizationDocument],
    ) -> Result<Vec<Tenant<'d>>, TrackerFault> {
        const SQL: &str = "
            WITH given AS (
                SELECT slug, name, n FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS g (slug, name, n)
            ), written AS (
                INSERT INTO organizations (slug, name)
                SELECT g.slug, g.name
                FROM given g
                LEFT JOIN organizations t ON t.slug = g.slug
                WHERE t.id IS NULL OR t.name IS DISTINCT FROM g.name
                ORDER BY t.id, g.n
                ON CONFLICT (slug) DO UPDATE SET name = EXCLUDED.name
                RETURNING id, slug
            )
            SELECT coalesce(w.id, t.id) AS id, w.id IS NOT NULL AS changed
            FROM given g
            LEFT JOIN written w ON w.slug = g.slug
            LEFT JOIN organizations t ON t.slug = g.slug
            ORDER BY g.n";
        let slugs: Vec<&str> = documents
            .iter()
            .map(|organization| organization.slug.as_str())
            .collect();
        let names: Vec<&str> = documents
            .iter()
            .map(|organization| organization.name.as_str())
            .collect();
        let ids = self.upsert("organizations", SQL, &[&slugs, &names]).await?;
        Ok(ids
            .into_iter()
            .zip(documents)
            .map(|(id, document)| Tenant { id, document })
            .collect())
    }

    /// Runs a statement that returns `id` and `changed` for every given row, in their order, and
    /// counts the changed ones.
    async fn upsert(
        &mut self,
        table: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<i64>, TrackerFault> {
        let rows = self.tx.query(sql, params).await?;
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get("id")?);
            self.count(table, u64::from(row.try_get::<_, bool>("changed")?));
        }
        Ok(ids)
    }

    /// Runs a statement whose affected rows are the changed ones, and counts them.
    async fn write(
        &mut self,
        table: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), TrackerFault> {
        let changed = self.tx.execute(sql, params).await?;
        self.count(table, changed);
        Ok(())
    }

    async fn rows(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, TrackerFault> {
        Ok(self.tx.query(sql, params).await?)
    }

    fn count(&mut self, table: &'static str, changed: u64) {
        *self.counts.entry(table.to_owned()).or_default() += changed;
    }
}
