//! One small heartbeat a replica, on a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use crate::engine::Spawn;
use crate::store::{Heartbeat, NewReplica, StoreError, connect_watched};
use crate::tls_policy::Endpoint;

/// How often the lease is renewed.
const EVERY: Duration = Duration::from_secs(1);
/// A renewal that takes longer is as good as lost.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long its connection may be silent meanwhile. It ends before the lease is given up: whoever begins again knows by then which
/// server to leave.
const SILENCE: Duration = Duration::from_millis(2800);

/// Begins a new incarnation.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(endpoint: &Endpoint, new: &NewReplica, spawn: &Spawn) -> Result<(Heartbeat, Arc<Lease>), StoreError> {
    let (client, connection) = connect_watched(endpoint, SILENCE).await?;
    spawn(
        "heartbeat connection",
        Box::pin(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = crate::fault::chain(&error), "the heartbeat's connection has ended");
            }
        }),
    );
    let heartbeat = Heartbeat::begin(client, new).await?;
    let lease = Arc::new(Lease::new(heartbeat.replica));
    Ok((heartbeat, lease))
}

/// Renews the lease until it is lost or `end` is cancelled, then ends the incarnation.
pub async fn beat(heartbeat: Heartbeat, lease: Arc<Lease>, drain: CancellationToken, end: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = end.cancelled() => break,
        }
        let sent = Instant::now();
        match tokio::time::timeout(ANSWER_WITHIN, heartbeat.renew(drain.is_cancelled())).await {
            Ok(Ok(true)) => lease.renew(sent),
            Ok(Ok(false)) => return lease.lose("it had run out before it was renewed".to_owned()),
            Ok(Err(error)) => return lease.lose(crate::fault::chain(&error)),
            Err(_) => return lease.lose(format!("Postgres did not answer within {} s", ANSWER_WITHIN.as_secs())),
        }
    }
    if let Err(error) = heartbeat.end().await {
        tracing::warn!(error = crate::fault::chain(&error), "the incarnation was not ended; its lease runs out by itself");
    }
}
