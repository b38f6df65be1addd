//! A replica's right to the jobs it owns, by its own monotonic clock.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::job::ReplicaId;

/// A replica that could not renew for this long starts no effect.
const EFFECTS_WITHIN: Duration = Duration::from_secs(3);

/// One incarnation's lease.
#[derive(Debug)]
pub struct Lease {
    replica: ReplicaId,
    renewed: watch::Sender<Instant>,
    lost: CancellationToken,
    why: Mutex<Option<String>>,
}

impl Lease {
    /// Just begun.
    #[must_use]
    pub fn new(replica: ReplicaId) -> Self {
        let (renewed, _) = watch::channel(Instant::now());
        Self { replica, renewed, lost: CancellationToken::new(), why: Mutex::new(None) }
    }

    /// Whose it is.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Cancelled when this incarnation is over.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Renewed by a heartbeat that was sent at `sent`.
    pub fn renew(&self, sent: Instant) {
        self.renewed.send_replace(sent);
    }

    /// This incarnation is over.
    pub fn lose(&self, why: String) {
        tracing::warn!(why, replica = %self.replica, "the lease is lost: this incarnation drops its jobs");
        if let Ok(mut known) = self.why.lock() {
            *known = Some(why);
        }
        self.lost.cancel();
    }

    /// Waits until the lease is fresh enough to start an effect. Never returns where it is lost: the caller is dropped.
    pub async fn may_start_effect(&self) {
        let mut renewed = self.renewed.subscribe();
        let fresh = |at: &Instant| at.elapsed() < EFFECTS_WITHIN;
        if renewed.wait_for(fresh).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
