//! The lease of a replica, measured by the replica's own monotonic clock.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::job::ReplicaId;

/// A replica whose last renewal is older than this starts no effect.
const EFFECTS_WITHIN: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Lease {
    replica: ReplicaId,
    renewed: watch::Sender<Instant>,
    lost: CancellationToken,
    why: Mutex<Option<String>>,
}

impl Lease {
    /// Creates a lease that was renewed just now.
    #[must_use]
    pub fn new(replica: ReplicaId) -> Self {
        let (renewed, _) = watch::channel(Instant::now());
        Self {
            replica,
            renewed,
            lost: CancellationToken::new(),
            why: Mutex::new(None),
        }
    }

    /// Returns the replica that holds the lease.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Returns a token that is cancelled when the lease is lost.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Renews the lease by a heartbeat that was sent at `sent`.
    pub fn renew(&self, sent: Instant) {
        self.renewed.send_replace(sent);
    }

    /// Ends the lease, and with it this incarnation.
    pub fn lose(&self, why: String) {
        tracing::warn!(why, replica = %self.replica, "the lease is lost; this incarnation drops its jobs");
        if let Ok(mut known) = self.why.lock() {
            *known = Some(why);
        }
        self.lost.cancel();
    }

    /// Waits until the lease is fresh enough to start an effect. Does not return once the lease is
    /// lost: the caller is dropped.
    pub async fn may_start_effect(&self) {
        let mut renewed = self.renewed.subscribe();
        let fresh = |at: &Instant| at.elapsed() < EFFECTS_WITHIN;
        if renewed.wait_for(fresh).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
