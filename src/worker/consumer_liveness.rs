//! Checks that consumers receive messages. The status flags of a connection prove nothing, so a
//! lane with free permits whose queue has messages must receive some.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::lane::LaneLimiter;
use crate::broker::Publisher;
use crate::telemetry::names;

const CHECK_EVERY: Duration = Duration::from_secs(5);
const STALLED_AFTER: Duration = Duration::from_secs(15);

/// The parts of a lane that the check reads and sets.
pub struct LaneWatch {
    pub limiter: Arc<LaneLimiter>,
    pub queue: &'static str,
    /// The consumer's prefetch; with 0 it receives nothing on purpose.
    pub prefetch: watch::Receiver<u16>,
    /// When the last delivery arrived.
    pub last_received: watch::Receiver<Instant>,
    /// Set to whether the consumer receives nothing although it should.
    pub stalled: watch::Sender<bool>,
    /// Makes the consumer connect again.
    pub rebuild: Arc<Notify>,
}

/// Checks every lane every 5 s until `end`, and rebuilds a consumer that has received nothing for
/// 15 s although it should have.
pub async fn check_lanes(lanes: Vec<LaneWatch>, publisher: Publisher, end: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK_EVERY) => {}
            () = end.cancelled() => return,
        }
        for lane in &lanes {
            let ready = messages(&publisher, lane.queue).await;
            let quiet = lane.last_received.borrow().elapsed() > STALLED_AFTER;
            let takes_deliveries = *lane.prefetch.borrow() > 0;
            let stalled = quiet && takes_deliveries && lane.limiter.free() > 0 && ready > 0;
            lane.stalled.send_replace(stalled);
            if stalled {
                tracing::error!(
                    queue = lane.queue,
                    "the queue has messages and the consumer receives none; it is rebuilt"
                );
                lane.rebuild.notify_one();
            }
        }
    }
}

/// Returns the number of messages that no consumer has received; 0 while it is not known.
async fn messages(publisher: &Publisher, queue: &'static str) -> u32 {
    let ready = publisher.depth(queue).await.map_or(0, |depth| depth.ready);
    metrics::gauge!(names::QUEUE_MESSAGES, "queue" => queue).set(f64::from(ready));
    ready
}
