//! Never deaf: status flags prove nothing, so a lane with free seats whose queue has messages must receive some.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::lane::LaneLimiter;
use crate::broker::Publisher;

const LOOK_EVERY: Duration = Duration::from_secs(5);
const DEAF_AFTER: Duration = Duration::from_secs(15);

/// What is watched of a lane.
pub struct LaneWatch {
    /// Whose free seats its deliveries would take.
    pub limiter: Arc<LaneLimiter>,
    /// What it consumes.
    pub queue: &'static str,
    /// Deliveries that it takes.
    pub prefetch: watch::Receiver<u16>,
    /// When its last delivery came.
    pub last_received: watch::Receiver<Instant>,
    /// Whether it is deaf now.
    pub deaf: watch::Sender<bool>,
    /// Has its consumer start afresh.
    pub rebuild: Arc<Notify>,
}

/// Looks every few seconds until `end`; a deaf lane has its consumer rebuilt.
pub async fn deafness(lanes: Vec<LaneWatch>, publisher: Publisher, end: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = end.cancelled() => return,
        }
        for lane in &lanes {
            let quiet = lane.last_received.borrow().elapsed() > DEAF_AFTER;
            let listens = *lane.prefetch.borrow() > 0;
            let deaf = quiet && listens && lane.limiter.free() > 0 && has_messages(&publisher, lane.queue).await;
            lane.deaf.send_replace(deaf);
            if deaf {
                tracing::error!(queue = lane.queue, "messages wait and none comes: the consumer is rebuilt");
                lane.rebuild.notify_one();
            }
        }
    }
}

async fn has_messages(publisher: &Publisher, queue: &str) -> bool {
    publisher.depth(queue).await.is_ok_and(|depth| depth.ready > 0)
}
