//! Consuming: one connection, a channel per queue, one supervisor that starts afresh on any doubt.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use secrecy::SecretString;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::{BrokerError, CALL_TIMEOUT, connect, topology, within};
use crate::reconnect::Reconnect;
use crate::telemetry::names;

/// Where the deliveries of one queue go.
pub struct LaneInput {
    /// The queue.
    pub queue: &'static str,
    /// Deliveries in hand at most, all replicas' consumers apart.
    pub prefetch: u16,
    /// To the lane.
    pub deliveries: mpsc::Sender<Delivery>,
    /// When the last one came.
    pub last_received: watch::Sender<Instant>,
}

/// What is known of the consuming connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Not there; why.
    Down(String),
    /// Consuming since.
    Up(Instant),
}

/// Keeps the consuming connection.
pub struct Consumers {
    url: SecretString,
    lanes: Vec<LaneInput>,
    link: watch::Sender<Link>,
    rebuild: Arc<Notify>,
}

/// A connection that has held for this long was well.
const HELD: Duration = Duration::from_secs(5);
/// How often a connection is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(250);

type Merged = SelectAll<futures_util::stream::BoxStream<'static, (usize, Option<lapin::Result<lapin::message::Delivery>>)>>;

struct Live {
    connection: Connection,
    channels: Vec<Channel>,
    deliveries: Merged,
}

impl Consumers {
    /// For these queues.
    #[must_use]
    pub fn new(url: SecretString, lanes: Vec<LaneInput>) -> Self {
        let (link, _) = watch::channel(Link::Down("not connected yet".to_owned()));
        Self { url, lanes, link, rebuild: Arc::new(Notify::new()) }
    }

    /// Tells how the connection is.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Drops the connection and starts afresh, when notified.
    #[must_use]
    pub fn rebuild(&self) -> Arc<Notify> {
        Arc::clone(&self.rebuild)
    }

    /// Consumes until cancelled, then takes nothing more; deliveries in hand can still be acked until `close`.
    pub async fn run(self, cancel: CancellationToken, close: CancellationToken) {
        let mut reconnect = Reconnect::default();
        while !cancel.is_cancelled() {
            let why = match self.open().await {
                Ok(mut live) => {
                    let since = Instant::now();
                    self.link.send_replace(Link::Up(since));
                    let why = self.consume(&mut live, &cancel).await;
                    // A connection that a message kills at once is not rebuilt at full speed.
                    if since.elapsed() > HELD {
                        reconnect.reset();
                    }
                    if cancel.is_cancelled() {
                        stop_taking(live, &close).await;
                        return;
                    }
                    why
                }
                Err(error) => crate::fault::chain(&error),
            };
            tracing::warn!(why, "the consuming connection starts afresh");
            metrics::counter!(names::RECONNECTS, "link" => "consumer").increment(1);
            self.link.send_replace(Link::Down(why));
            tokio::select! {
                () = tokio::time::sleep(reconnect.next_delay()) => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    async fn open(&self) -> Result<Live, BrokerError> {
        let connection = connect(&self.url, "dispatch consumer").await?;
        let (mut channels, mut streams) = (Vec::new(), Vec::new());
        for (index, lane) in self.lanes.iter().enumerate() {
            let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
            topology::look(&channel, lane.queue).await.map_err(|error| BrokerError::Topology(crate::fault::chain(&error)))?;
            within(CALL_TIMEOUT, channel.basic_qos(lane.prefetch, BasicQosOptions::default())).await?;
            let options = BasicConsumeOptions::default();
            let consuming = channel.basic_consume(lane.queue.into(), "".into(), options, FieldTable::default());
            streams.push(labelled(index, within(CALL_TIMEOUT, consuming).await?));
            channels.push(channel);
            lane.last_received.send_replace(Instant::now());
        }
        Ok(Live { connection, channels, deliveries: select_all(streams) })
    }

    /// Hands deliveries on until something is in doubt; returns what.
    async fn consume(&self, live: &mut Live, cancel: &CancellationToken) -> String {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return "draining".to_owned(),
                () = self.rebuild.notified() => return "a queue has messages and none came".to_owned(),
                next = live.deliveries.next() => match next {
                    Some((index, Some(Ok(delivery)))) => {
                        let lane = &self.lanes[index];
                        lane.last_received.send_replace(Instant::now());
                        if lane.deliveries.send(Delivery::new(delivery)).await.is_err() {
                            return "the lane is gone".to_owned();
                        }
                    }
                    Some((index, Some(Err(error)))) => return format!("{}: {error}", self.lanes[index].queue),
                    Some((index, None)) => {
                        metrics::counter!(names::CONSUMER_CANCELS).increment(1);
                        return format!("{}: the broker ended the consumer", self.lanes[index].queue);
                    }
                    None => return "every consumer has ended".to_owned(),
                },
                () = tokio::time::sleep(LOOK) => {
                    if !live.connection.status().connected() || live.channels.iter().any(|channel| !channel.status().connected()) {
                        return "the connection is closed".to_owned();
                    }
                }
            }
        }
    }
}

/// A consumer's deliveries, each with its lane's index, and a `None` at its end.
fn labelled(
    index: usize,
    consumer: Consumer,
) -> futures_util::stream::BoxStream<'static, (usize, Option<lapin::Result<lapin::message::Delivery>>)> {
    let ended = futures_util::stream::once(std::future::ready(None));
    consumer.map(Some).chain(ended).map(move |delivery| (index, delivery)).boxed()
}

/// Cancels the consumers, but leaves the channels open so that deliveries in hand can be acked until `close`.
async fn stop_taking(live: Live, close: &CancellationToken) {
    let Live { connection, channels, deliveries } = live;
    drop(deliveries);
    close.cancelled().await;
    drop(channels);
    drop(within(CALL_TIMEOUT, connection.close(200, "drained".into())).await);
}
