//! Opens the store and the tracker for a command.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::app;
use crate::config::Links;
use crate::secrets::Keyring;
use crate::store::{self, Store};
use crate::tracker::Tracker;

/// Connections of the pool; a command runs one query at a time.
const CONNECTIONS: usize = 2;

/// Opens the store.
pub(super) async fn store(links: &Links) -> anyhow::Result<Store> {
    let store = Store::new(store::pool(links.database_url()?, CONNECTIONS)?);
    match store.schema_version().await {
        Ok((present, needed)) if present < needed => {
            bail!("expected schema V{needed}, got V{present}; run `dispatch migrate`")
        }
        Ok(_) => Ok(store),
        Err(error) if error.is_infrastructure() => Err(error.into()),
        Err(error) => Err(error).context(
            "the schema version cannot be read; run `dispatch migrate` to create the schema",
        ),
    }
}

/// Opens the tracker for a command that unseals no values.
pub(super) async fn tracker(links: &Links) -> anyhow::Result<Tracker> {
    tracker_opening(links, Keyring::parse(&Keyring::fresh_setting())?).await
}

/// Opens the tracker with the configured keyring.
pub(super) async fn tracker_with_keyring(links: &Links) -> anyhow::Result<Tracker> {
    tracker_opening(links, app::keyring(links)?).await
}

async fn tracker_opening(links: &Links, keyring: Keyring) -> anyhow::Result<Tracker> {
    drop(store(links).await?);
    Ok(Tracker::new(
        store::pool(links.database_url()?, CONNECTIONS)?,
        Arc::new(keyring),
    ))
}
