//! Registration by operators: accounts of organizations, destinations and their secrets. Each
//! function runs in a transaction of its caller, which writes the audit row in it.

mod destinations;
mod installations;

use std::time::Duration;

use deadpool_postgres::GenericClient;
use serde::Serialize;
use time::OffsetDateTime;

pub use destinations::{
    DestinationRow, NewDestination, check_secret_place, destination_id, destination_rows,
    register_destination, rotate_destination_secret, set_destination_disabled,
};
pub use installations::{
    InstallationRow, NewInstallation, installation_rows, register_installation, rotate_hook_secret,
    set_installation_disabled,
};

use super::{Destination, SealedTracker, Tracker, TrackerFault, query};

/// A row before and after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowChange<R> {
    /// The row before; `None` if it is new.
    pub before: Option<R>,
    /// The present row.
    pub after: R,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// When the previous secret expires; `None` if there was none, or if it expired at once.
    #[serde(with = "time::serde::rfc3339::option")]
    pub previous_until: Option<OffsetDateTime>,
    /// The number of expired secrets that were deleted.
    pub forgotten: u64,
}

impl Tracker {
    /// See [`known_organization`].
    ///
    /// # Errors
    /// The same as [`known_organization`].
    pub async fn known_organization(&self, slug: &str) -> Result<i64, TrackerFault> {
        known_organization(&self.client().await?, slug).await
    }

    /// Returns the [`installation_rows`] of one organization or of all.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn installation_rows(
        &self,
        organization: Option<&str>,
    ) -> Result<Vec<InstallationRow>, TrackerFault> {
        let client = self.client().await?;
        let organization_id = maybe_organization(&client, organization).await?;
        installation_rows(&client, organization_id).await
    }

    /// Returns the [`destination_rows`] of one organization or of all.
    ///
    /// # Errors
    /// [`TrackerFault`].
    pub async fn destination_rows(
        &self,
        organization: Option<&str>,
    ) -> Result<Vec<DestinationRow>, TrackerFault> {
        let client = self.client().await?;
        let organization_id = maybe_organization(&client, organization).await?;
        destination_rows(&client, organization_id).await
    }
}

impl SealedTracker {
    /// Returns a destination by name, with opened secrets.
    ///
    /// # Errors
    /// [`TrackerFault`], also if there is none.
    pub async fn known_destination(
        &self,
        organization: &str,
        name: &str,
    ) -> Result<Destination, TrackerFault> {
        let client = self.tracker.client().await?;
        let organization_id = known_organization(&client, organization).await?;
        let id = destination_id(&client, organization_id, name).await?;
        let found = super::destinations::destination(&client, &self.keyring, id).await?;
        found.ok_or_else(|| unknown("destination", name, Vec::new()))
    }
}

/// Deletes secrets that expire by `now`, and returns how many.
pub(super) async fn forget_secrets(
    client: &impl GenericClient,
    now: OffsetDateTime,
) -> Result<u64, TrackerFault> {
    let now = Some(now);
    Ok(installations::forget_hook_secrets(client, now).await?
        + destinations::forget_previous_secrets(client, now).await?)
}

/// Returns the row id of an organization by its slug. The error for an unknown one lists existing
/// ones.
///
/// # Errors
/// [`TrackerFault::UnknownReference`], [`TrackerFault::Database`].
pub async fn known_organization(
    client: &impl GenericClient,
    slug: &str,
) -> Result<i64, TrackerFault> {
    const RIGHT: &str = "SELECT slug FROM organizations ORDER BY slug LIMIT 10";
    if let Some(id) = super::organizations::organization_id(client, slug).await? {
        return Ok(id);
    }
    let known = query(client, RIGHT, &[]).await?;
    Err(unknown(
        "organization",
        slug,
        known
            .iter()
            .map(|row| row.try_get("slug"))
            .collect::<Result<_, _>>()?,
    ))
}

async fn maybe_organization(
    client: &impl GenericClient,
    slug: Option<&str>,
) -> Result<Option<i64>, TrackerFault> {
    match slug {
        Some(slug) => known_organization(client, slug).await.map(Some),
        None => Ok(None),
    }
}

/// Makes the error for an unknown name, with the existing names.
pub(super) fn unknown(kind: &'static str, name: &str, known: Vec<String>) -> TrackerFault {
    let right = if known.is_empty() {
        format!("a newly registered {kind}")
    } else {
        format!("one of: {}", known.join(", "))
    };
    TrackerFault::UnknownReference {
        at: "request".to_owned(),
        kind,
        name: name.to_owned(),
        right,
    }
}

/// Returns seconds for `make_interval`.
fn seconds(of: Duration) -> f64 {
    of.as_secs_f64()
}
