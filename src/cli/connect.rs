//! Opens the store and the tracker for a command.

use anyhow::{Context, bail};

use crate::config::Links;
use crate::store::{self, Store};
use crate::tracker::Tracker;

/// Connections of the pool; a command runs one query at a time.
const CONNECTIONS: usize = 2;

/// Opens the store.
pub(super) async fn store(links: &Links) -> anyhow::Result<Store> {
    Ok(store_and_tracker(links).await?.0)
}

/// Opens the tracker.
pub(super) async fn tracker(links: &Links) -> anyhow::Result<Tracker> {
    Ok(store_and_tracker(links).await?.1)
}

/// Opens the store and the tracker over the same connections.
pub(super) async fn store_and_tracker(links: &Links) -> anyhow::Result<(Store, Tracker)> {
    let pool = store::pool(links.database_url()?, CONNECTIONS)?;
    let store = Store::new(pool.clone());
    match store.schema_version().await {
        Ok((present, needed)) if present < needed => {
            bail!("expected schema V{needed}, got V{present}; run `dispatch migrate`")
        }
        Ok(_) => Ok((store, Tracker::new(pool))),
        Err(error) if error.is_infrastructure() => Err(error.into()),
        Err(error) => Err(error).context(
            "the schema version cannot be read; run `dispatch migrate` to create the schema",
        ),
    }
}
