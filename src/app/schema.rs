//! Waiting for Postgres: a worker begins only with a schema that is new enough.

use anyhow::Context as _;

use crate::reconnect::Reconnect;
use crate::store::{Store, StoreError};

/// Waits for Postgres, then checks that its schema is new enough for this program.
pub(super) async fn wait_for_schema(store: &Store) -> anyhow::Result<()> {
    let mut reconnect = Reconnect::default();
    let (found, needed) = loop {
        match store.schema_version().await {
            Err(error) if error.is_infrastructure() => {
                tracing::warn!(error = crate::fault::chain(&error), "waiting for Postgres");
                tokio::time::sleep(reconnect.next_delay()).await;
            }
            answer => {
                break answer.context("the schema cannot be read; run `dispatch migrate` first")?;
            }
        }
    };
    anyhow::ensure!(
        found >= needed,
        "the schema is at V{found} and this program needs V{needed}; run `dispatch migrate`"
    );
    warn_of_power(store).await;
    Ok(())
}

/// Warns if the worker's role has more rights in Postgres than a worker needs. The worker runs
/// nevertheless.
async fn warn_of_power(store: &Store) {
    let read = async {
        let role = store.session().await?.user;
        let excess = store.excess_of(&role).await?;
        Ok::<_, StoreError>((role, excess))
    };
    match read.await {
        Ok((_, excess)) if excess.is_empty() => {}
        Ok((role, excess)) => tracing::warn!(
            role,
            excess = excess.join("; "),
            "the worker's role in Postgres can do more than a worker needs; use a login of `dispatch migrate --worker-login`"
        ),
        Err(error) => tracing::warn!(
            error = crate::fault::chain(&error),
            "the rights of the worker's role cannot be read"
        ),
    }
}
