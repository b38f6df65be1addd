//! The governor's holds, kept in the store, and the refresh of all controls. Only this module depends on both, so that neither
//! depends on the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio_util::sync::CancellationToken;

use crate::fault::StageFault;
use crate::job::ReplicaId;
use crate::providers::governor::{Governor, Holds, LiveHold, NewHold};
use crate::store::{self, Controls, Store};

/// How often each replica reads the holds of other replicas and of operators.
const EVERY: Duration = Duration::from_millis(500);

/// Keeps holds as rows of the store.
pub(crate) struct StoredHolds {
    store: Store,
    /// The copy of all controls, which the same read refreshes.
    controls: Arc<Controls>,
    replica: AtomicI64,
}

impl StoredHolds {
    #[must_use]
    pub(crate) const fn new(store: Store, controls: Arc<Controls>) -> Self {
        Self {
            store,
            controls,
            replica: AtomicI64::new(0),
        }
    }

    /// Sets the replica that places holds from now on.
    pub(crate) fn act_as(&self, replica: ReplicaId) {
        self.replica.store(replica.0, Ordering::Relaxed);
    }
}

/// Keeps no holds; for providers that are never called.
pub(crate) struct Unkept;

impl Holds for Unkept {
    fn place<'a>(&'a self, hold: NewHold<'a>) -> BoxFuture<'a, Result<Duration, StageFault>> {
        std::future::ready(Ok(hold.length)).boxed()
    }

    fn live(&self) -> BoxFuture<'_, Result<Vec<LiveHold>, StageFault>> {
        std::future::ready(Ok(Vec::new())).boxed()
    }
}

impl Holds for StoredHolds {
    fn place<'a>(&'a self, hold: NewHold<'a>) -> BoxFuture<'a, Result<Duration, StageFault>> {
        let who = format!("replica {}", self.replica.load(Ordering::Relaxed));
        async move {
            let NewHold {
                scope,
                is_circuit,
                reason,
                length,
            } = hold;
            Ok(self
                .store
                .place_hold(&store::NewHold {
                    scope,
                    is_circuit,
                    reason,
                    who: &who,
                    length,
                })
                .await?)
        }
        .boxed()
    }

    fn live(&self) -> BoxFuture<'_, Result<Vec<LiveHold>, StageFault>> {
        async move {
            let rows = self.controls.read().await?;
            let holds = rows
                .into_iter()
                .filter(|row| matches!(row.kind.as_str(), "hold" | "circuit"));
            let live = holds.map(|row| {
                let left = row.left();
                // An operator's reason alone does not show that an operator placed the hold.
                let reason = if row.automatic {
                    row.reason
                } else {
                    format!("{} holds it: {}", row.who, row.reason)
                };
                LiveHold {
                    scope: row.scope,
                    is_circuit: row.kind == "circuit",
                    reason,
                    left,
                }
            });
            Ok(live.collect())
        }
        .boxed()
    }
}

/// Refreshes the governor's copy of the holds, and the copy of all controls, until `end`.
pub(crate) async fn follow(governor: Arc<Governor>, end: CancellationToken) {
    loop {
        refresh(&governor).await;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = end.cancelled() => return,
        }
    }
}

/// Refreshes the copy once. If the holds cannot be read, the next refresh reads them.
pub(crate) async fn refresh(governor: &Governor) {
    if let Err(fault) = governor.refresh().await {
        tracing::warn!(
            error = fault.message(),
            "the holds cannot be read; the governor uses the known ones"
        );
    }
}
