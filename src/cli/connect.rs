//! A store for a command.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::app;
use crate::config::Links;
use crate::secrets::Keyring;
use crate::store::{self, Store};
use crate::tracker::Tracker;

/// A command runs one query after another.
const CONNECTIONS: usize = 2;

/// A store that neither seals nor opens anything, so that no keyring is asked for.
pub(super) async fn store(links: &Links) -> anyhow::Result<Store> {
    open(links, Keyring::parse(&Keyring::fresh_setting())?).await
}

/// A store with the keyring of the settings.
pub(super) async fn store_with_keyring(links: &Links) -> anyhow::Result<Store> {
    open(links, app::keyring(links)?).await
}

async fn open(links: &Links, keyring: Keyring) -> anyhow::Result<Store> {
    let store = Store::new(store::pool(links.database_url()?, CONNECTIONS)?, Arc::new(keyring));
    match store.schema_version().await {
        Ok((present, needed)) if present < needed => {
            bail!("the schema is V{present}, this program needs V{needed}; run `dispatch migrate`")
        }
        Ok(_) => Ok(store),
        Err(error) if error.is_infrastructure() => Err(error.into()),
        Err(error) => Err(error).context("the schema cannot be read; `dispatch migrate` makes it"),
    }
}

/// The product's tables, for a command that opens no sealed value.
pub(super) async fn tracker(links: &Links) -> anyhow::Result<Tracker> {
    drop(store(links).await?);
    let keyring = Keyring::parse(&Keyring::fresh_setting())?;
    Ok(Tracker::new(store::pool(links.database_url()?, CONNECTIONS)?, Arc::new(keyring)))
}

/// The product's tables, with the keyring of the settings.
pub(super) async fn tracker_with_keyring(links: &Links) -> anyhow::Result<Tracker> {
    let keyring = app::keyring(links)?;
    drop(store(links).await?);
    Ok(Tracker::new(store::pool(links.database_url()?, CONNECTIONS)?, Arc::new(keyring)))
}
