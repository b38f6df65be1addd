//! The product's tables in Postgres: organizations, their people, groups and links, identities,
//! destinations. Free functions over a client read them; [`Tracker`] calls these with a connection
//! of its pool, and [`SealedTracker`] those that seal or open a value. [`apply`] writes inside the
//! transaction of a job's commit, and [`import`] in its own.

mod allowed;
mod apply_batch;
mod assignment_rules;
mod assignments;
mod causes;
mod destinations;
mod document;
mod error;
mod events;
mod export;
mod groups;
mod identities;
mod import;
mod interactions;
mod moved;
mod organizations;
mod people;
mod registry;
mod retention;
mod sealed;
mod set_tokens;
mod types;

use std::collections::{HashMap, HashSet};

use deadpool_postgres::{GenericClient, Object, Pool};
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

pub use allowed::{Allowed, allowed_by_ids, allowed_by_request, group_outside};
pub use assignment_rules::is_done_category;
pub use assignments::apply;
pub use causes::{cause_present, destination_cause, identity_cause, installation_cause};
pub use document::*;
pub use error::TrackerFault;
pub use export::Export;
pub use groups::{assignee_key, work_item_resource};
pub use import::{Imported, import};
pub use people::email_key;
pub use registry::*;
pub use sealed::{SEALED, SealedTracker};
pub use set_tokens::{register_identity, set_tokens};
pub use types::*;

use crate::job::JobId;

/// Access to the product's tables outside of a job's commit. Each method takes a connection from
/// the pool and returns it at the end; nothing is held between calls. All methods can fail with
/// [`TrackerFault::Pool`] or [`TrackerFault::Database`].
#[derive(Clone)]
pub struct Tracker {
    pool: Pool,
}

impl Tracker {
    /// Creates a tracker that uses this pool.
    #[must_use]
    pub const fn new(pool: Pool) -> Self {
        Self { pool }
    }

    async fn client(&self) -> Result<Object, TrackerFault> {
        Ok(self.pool.get().await?)
    }

    /// Returns the id of the organization with this slug.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn organization_id(&self, slug: &str) -> Result<Option<i64>, TrackerFault> {
        let client = self.client().await?;
        organizations::organization_id(&client, slug).await
    }

    /// Returns the installation of an account, named by its id (case-insensitive), in an
    /// organization.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn installation(
        &self,
        organization_id: i64,
        account_id: &str,
    ) -> Result<Option<Installation>, TrackerFault> {
        let client = self.client().await?;
        organizations::installation(&client, organization_id, account_id).await
    }

    /// Returns an account, independent of the organizations that use it.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn integration(
        &self,
        integration_id: i64,
    ) -> Result<Option<Integration>, TrackerFault> {
        let client = self.client().await?;
        organizations::integration(&client, integration_id).await
    }

    /// Returns the SHA-256 of every shared secret that the account's service hooks may use now.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn hook_secrets(&self, integration_id: i64) -> Result<Vec<[u8; 32]>, TrackerFault> {
        let client = self.client().await?;
        organizations::hook_secrets(&client, integration_id).await
    }

    /// Returns which of these events have been seen: a job that handled them has committed its
    /// assignments.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn seen_events(
        &self,
        integration_id: i64,
        ids: &[String],
    ) -> Result<HashSet<String>, TrackerFault> {
        let client = self.client().await?;
        events::seen_events(&client, integration_id, ids).await
    }

    /// Returns the groups linked to these work items, in organizations whose installation is
    /// enabled and has assignee or status inbound sync on, sorted by group and work item.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn linked_groups(
        &self,
        integration_id: i64,
        work_item_ids: &[i64],
    ) -> Result<Vec<LinkedGroup>, TrackerFault> {
        let client = self.client().await?;
        groups::linked_groups(&client, integration_id, work_item_ids).await
    }

    /// Returns, for each (project, e-mail), the member of the project who has verified this
    /// address (case-insensitive). Pairs without a match are omitted.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn members_by_email(
        &self,
        wanted: &[(i64, String)],
    ) -> Result<HashMap<(i64, String), i64>, TrackerFault> {
        let client = self.client().await?;
        people::members_by_email(&client, wanted).await
    }

    /// Returns every work item linked to these groups through an enabled installation with
    /// outbound sync on, sorted by group, integration and work item.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn outbound_links(
        &self,
        group_ids: &[i64],
    ) -> Result<Vec<OutboundLink>, TrackerFault> {
        let client = self.client().await?;
        groups::outbound_links(&client, group_ids).await
    }

    /// Returns a group's present assignee; `None` if the group does not exist.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn group_assignee(
        &self,
        group_id: i64,
    ) -> Result<Option<GroupAssignee>, TrackerFault> {
        let client = self.client().await?;
        groups::group_assignee(&client, group_id).await
    }

    /// Returns the revision of a work item last applied to a group's assignee (0 = none); `None`
    /// if the two are not linked.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn link_applied_rev(
        &self,
        group_id: i64,
        integration_id: i64,
        work_item_id: i64,
    ) -> Result<Option<i64>, TrackerFault> {
        let client = self.client().await?;
        groups::link_applied_rev(&client, group_id, integration_id, work_item_id).await
    }

    /// Returns whether the ledger has an effect that made this revision of a work item with this
    /// assignee (case-insensitive; `None` = unassigned).
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn own_write(
        &self,
        integration_id: i64,
        work_item_id: i64,
        rev: i64,
        tracker_assignee: Option<&str>,
    ) -> Result<bool, TrackerFault> {
        let client = self.client().await?;
        groups::own_write(&client, integration_id, work_item_id, rev, tracker_assignee).await
    }

    /// Returns whether the ledger has an effect of this job without a known outcome.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn has_open_effect(&self, job: JobId) -> Result<bool, TrackerFault> {
        groups::has_open_effect(&self.client().await?, job).await
    }
}

/// Parameters of a statement with their types, so that the statement needs no round trip for
/// preparation: the transaction of a commit is the driver's own, which caches no prepared
/// statements.
type Typed<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// Returns a time as Postgres stores it, truncated to microseconds.
fn in_microseconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_microsecond(at.microsecond()).unwrap_or(at)
}

async fn query(
    client: &impl GenericClient,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, TrackerFault> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query(&statement, params).await?)
}

async fn query_opt(
    client: &impl GenericClient,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, TrackerFault> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.query_opt(&statement, params).await?)
}

async fn execute(
    client: &impl GenericClient,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<u64, TrackerFault> {
    let statement = client.prepare_cached(sql).await?;
    Ok(client.execute(&statement, params).await?)
}
