//! The product's sealed columns, and access to their values.

use std::sync::Arc;

use super::destinations::{self, PREVIOUS_SECRET, SECRET};
use super::identities::{ACCESS_TOKEN, REFRESH_TOKEN};
use super::{Clicked, Destination, Tracker, TrackerFault, interactions};
use crate::job::JobId;
use crate::secrets::{Keyring, RowId, SealedColumn};

/// The product's sealed columns.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::plain("identities", ACCESS_TOKEN, RowId::Number),
    SealedColumn::plain("identities", REFRESH_TOKEN, RowId::Number),
    SealedColumn::plain("destinations", SECRET, RowId::Number),
    SealedColumn::plain("destinations", PREVIOUS_SECRET, RowId::Number),
];

/// Access to the product's sealed values outside of a job's commit. Its methods are those that seal
/// or open a value; otherwise the same as [`Tracker`].
#[derive(Clone)]
pub struct SealedTracker {
    pub(super) tracker: Tracker,
    pub(super) keyring: Arc<Keyring>,
}

impl SealedTracker {
    /// Creates access to the sealed values of a tracker with this keyring.
    #[must_use]
    pub const fn new(tracker: Tracker, keyring: Arc<Keyring>) -> Self {
        Self { tracker, keyring }
    }

    /// Returns a destination.
    ///
    /// # Errors
    /// [`TrackerFault`], also if a sealed value cannot be opened.
    pub async fn destination(&self, id: i64) -> Result<Option<Destination>, TrackerFault> {
        let client = self.tracker.client().await?;
        destinations::destination(&client, &self.keyring, id).await
    }

    /// Returns the interaction that answers the click that created a job; `None` if no click did,
    /// or the job no longer exists.
    ///
    /// # Errors
    /// [`TrackerFault`], also if the sealed token cannot be opened.
    pub async fn interaction(&self, job: JobId) -> Result<Option<Clicked>, TrackerFault> {
        let client = self.tracker.client().await?;
        interactions::interaction(&client, &self.keyring, job).await
    }

    /// Returns an organization's destinations with these names, in their order (unregistered names
    /// are omitted), or for `None` its defaults, sorted by name. Includes disabled ones.
    ///
    /// # Errors
    /// [`TrackerFault`], also if a sealed value cannot be opened.
    pub async fn destinations(
        &self,
        organization_id: i64,
        names: Option<&[String]>,
    ) -> Result<Vec<Destination>, TrackerFault> {
        let client = self.tracker.client().await?;
        match names {
            Some(names) => {
                destinations::destinations_by_name(&client, &self.keyring, organization_id, names)
                    .await
            }
            None => {
                destinations::default_destinations(&client, &self.keyring, organization_id).await
            }
        }
    }
}
