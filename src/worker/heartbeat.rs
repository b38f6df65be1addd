//! The heartbeat of a replica, on a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use crate::engine::Spawn;
use crate::store::{Heartbeat, NewReplica, StoreError, connect_watched};
use crate::tls_policy::Endpoint;

/// How often the lease is renewed.
const EVERY: Duration = Duration::from_secs(1);
/// A renewal that is not answered within this time has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How long the heartbeat's connection may be silent while an answer is owed. It is shorter than
/// [`ANSWER_WITHIN`], so the next incarnation already knows which address to avoid.
const SILENCE: Duration = Duration::from_millis(2800);

/// Begins a new incarnation, with its heartbeat and its lease.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(
    endpoint: &Endpoint,
    new: &NewReplica,
    spawn: &Spawn,
) -> Result<(Heartbeat, Arc<Lease>), StoreError> {
    let (client, connection) = connect_watched(endpoint, SILENCE).await?;
    spawn(
        "heartbeat connection",
        Box::pin(async move {
            if let Err(error) = connection.await {
                tracing::debug!(
                    error = crate::fault::chain(&error),
                    "the connection of the heartbeat ended"
                );
            }
        }),
    );
    let heartbeat = Heartbeat::begin(client, new).await?;
    let lease = Arc::new(Lease::new(heartbeat.replica));
    Ok((heartbeat, lease))
}

/// Renews the lease until it is lost or `end` is cancelled, then ends the incarnation.
pub async fn beat(
    heartbeat: Heartbeat,
    lease: Arc<Lease>,
    drain: CancellationToken,
    end: CancellationToken,
) {
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
            Ok(Ok(false)) => return lease.lose("it expired before it was renewed".to_owned()),
            Ok(Err(error)) => return lease.lose(crate::fault::chain(&error)),
            Err(_) => {
                return lease.lose(format!(
                    "Postgres did not answer within {} s",
                    ANSWER_WITHIN.as_secs()
                ));
            }
        }
    }
    if let Err(error) = heartbeat.end().await {
        tracing::warn!(
            error = crate::fault::chain(&error),
            "the end of the incarnation was not stored; its lease expires by itself"
        );
    }
}
