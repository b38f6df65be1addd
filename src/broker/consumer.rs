//! Consuming. Each queue has its own connection, so that a message that breaks a connection stops
//! no other lane, and a supervisor that reconnects on any failure.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::acks::Acks;
use super::delivery::Delivery;
use super::sanitize::{ByteBudget, Inbound, Taker};
use super::{BrokerError, CALL_TIMEOUT, connect_inbound, topology, within};
use crate::reconnect::Reconnect;
use crate::telemetry::names;
use crate::tls_policy::Endpoint;

/// The destination of the deliveries of one queue.
pub struct LaneInput {
    pub queue: &'static str,
    /// The maximum number of deliveries in hand, for this replica; 0 stops consuming. Changes take
    /// effect while the consumer runs.
    pub prefetch: watch::Receiver<u16>,
    /// The channel to the lane.
    pub deliveries: mpsc::Sender<Delivery>,
    /// The time of the last delivery.
    pub last_received: watch::Sender<Instant>,
}

/// The state of the consuming connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Not connected, with the reason.
    Down(String),
    /// Consuming since.
    Up(Instant),
}

/// Maintains the consuming connection of one queue.
pub struct QueueConsumer {
    endpoint: Endpoint,
    lane: LaneInput,
    /// The budget of the process, which is charged for deliveries until they are rows.
    budget: ByteBudget,
    link: watch::Sender<Link>,
    rebuild: Arc<Notify>,
}

/// The time after which a connection counts as stable.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// The interval at which an idle connection is checked.
const CHECK_EVERY: Duration = Duration::from_millis(250);

struct Live {
    connection: Connection,
    channel: Channel,
    /// `None` while the prefetch is 0.
    deliveries: Option<Consumer>,
    /// The consumer is cancelled, to be replaced by one with another prefetch. Messages already
    /// sent to it still arrive.
    ending: bool,
    /// The pending answer to the cancellation. Deliveries before it are passed on meanwhile,
    /// because it may wait until others are acked.
    cancelling: Option<PendingCall>,
    acks: Acks,
    inbound: Taker,
}

type PendingCall = Pin<Box<dyn Future<Output = Result<(), BrokerError>> + Send>>;

impl QueueConsumer {
    /// Creates the consumer of a queue. Its deliveries are charged to `budget`.
    #[must_use]
    pub fn new(endpoint: impl Into<Endpoint>, lane: LaneInput, budget: ByteBudget) -> Self {
        let (link, _) = watch::channel(Link::Down("not connected yet".to_owned()));
        Self {
            endpoint: endpoint.into(),
            lane,
            budget,
            link,
            rebuild: Arc::new(Notify::new()),
        }
    }

    /// Returns a receiver of the connection's state.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
    }

    /// Returns the notification that makes the consumer drop its connection and connect again.
    #[must_use]
    pub fn rebuild(&self) -> Arc<Notify> {
        Arc::clone(&self.rebuild)
    }

    /// Consumes until cancelled, then accepts no more; deliveries in hand can still be acked until
    /// `close`.
    pub async fn run(mut self, cancel: CancellationToken, close: CancellationToken) {
        let mut reconnect = Reconnect::default();
        while !cancel.is_cancelled() {
            let (why, waited) = match self.open().await {
                Ok(mut live) => {
                    let since = Instant::now();
                    self.link.send_replace(Link::Up(since));
                    let why = self.consume(&mut live, &cancel).await;
                    let waited = live.inbound.waits();
                    // A connection that a message breaks at once is not rebuilt at full speed.
                    if since.elapsed() > STABLE_AFTER {
                        reconnect.reset();
                    }
                    if cancel.is_cancelled() {
                        stop_taking(live, &close).await;
                        return;
                    }
                    (why, waited)
                }
                Err(error) => (crate::fault::chain(&error), false),
            };
            tracing::warn!(
                queue = self.lane.queue,
                why,
                "the consuming connection was dropped; the consumer reconnects"
            );
            metrics::counter!(names::RECONNECTS, "link" => self.lane.queue).increment(1);
            self.link.send_replace(Link::Down(why));
            let delay = reconnect.next_delay();
            let pause = async {
                // RabbitMQ closes a connection that is not read. A new one would wait for memory
                // as this one did.
                if waited {
                    self.budget.has_room().await;
                }
                tokio::time::sleep(delay).await;
            };
            tokio::select! {
                () = pause => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    async fn open(&mut self) -> Result<Live, BrokerError> {
        let lane = &mut self.lane;
        let (inbound, taker) = Inbound::new(&self.budget);
        let connection = connect_inbound(&self.endpoint, lane.queue, Some(inbound)).await?;
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        topology::depth(&channel, lane.queue)
            .await
            .map_err(|error| BrokerError::Topology(crate::fault::chain(&error)))?;
        let deliveries = subscribe(&channel, lane).await?;
        let acks = Acks::of(channel.clone());
        Ok(Live {
            connection,
            channel,
            deliveries,
            ending: false,
            cancelling: None,
            acks,
            inbound: taker,
        })
    }

    /// Passes deliveries on until something fails. Returns the reason.
    async fn consume(&mut self, live: &mut Live, cancel: &CancellationToken) -> String {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return "draining".to_owned(),
                () = self.rebuild.notified() => return "the queue has messages, but none were delivered".to_owned(),
                Ok(()) = self.lane.prefetch.changed(), if !live.inbound.waits() => if let Err(error) = self.change_prefetch(live).await {
                    return crate::fault::chain(&error);
                },
                cancelled = ended(&mut live.cancelling) => {
                    live.cancelling = None;
                    if let Err(error) = cancelled {
                        return crate::fault::chain(&error);
                    }
                }
                tag = live.acks.next() => live.acks.send(Some(tag)).await,
                next = next(&mut live.deliveries) => match next {
                    Some(Ok(delivery)) => {
                        self.lane.last_received.send_replace(Instant::now());
                        let done = live.acks.delivered(delivery.delivery_tag);
                        let arrived = live.inbound.take(live.channel.id(), delivery.delivery_tag);
                        if self.lane.deliveries.send(Delivery::new(delivery, arrived, done)).await.is_err() {
                            return "the lane has ended".to_owned();
                        }
                    }
                    Some(Err(error)) => return error.to_string(),
                    None if live.ending => match subscribe(&live.channel, &mut self.lane).await {
                        Ok(deliveries) => (live.deliveries, live.ending) = (deliveries, false),
                        Err(error) => return crate::fault::chain(&error),
                    },
                    None => {
                        metrics::counter!(names::CONSUMER_CANCELS).increment(1);
                        return "the broker ended the consumer".to_owned();
                    }
                },
                () = tokio::time::sleep(CHECK_EVERY) => {
                    if live.inbound.waits() {
                        // The connection is not stuck: the next delivery has arrived and waits for
                        // memory.
                        self.lane.last_received.send_replace(Instant::now());
                    }
                    if !live.connection.status().connected() || !live.channel.status().connected() {
                        return "the connection is closed".to_owned();
                    }
                }
            }
        }
    }

    /// Changes the prefetch. The broker applies it only to a new consumer, so the old one is
    /// cancelled, and replaced when everything sent to it has arrived. Deliveries in hand stay in
    /// hand.
    async fn change_prefetch(&mut self, live: &mut Live) -> Result<(), BrokerError> {
        let Some(deliveries) = &live.deliveries else {
            live.deliveries = subscribe(&live.channel, &mut self.lane).await?;
            return Ok(());
        };
        if !live.ending {
            live.ending = true;
            let (channel, tag) = (live.channel.clone(), deliveries.tag());
            live.cancelling = Some(Box::pin(async move {
                within(
                    CALL_TIMEOUT,
                    channel.basic_cancel(tag, BasicCancelOptions::default()),
                )
                .await
            }));
        }
        Ok(())
    }
}

async fn next(
    deliveries: &mut Option<Consumer>,
) -> Option<lapin::Result<lapin::message::Delivery>> {
    match deliveries {
        Some(deliveries) => deliveries.next().await,
        None => std::future::pending().await,
    }
}

async fn ended(call: &mut Option<PendingCall>) -> Result<(), BrokerError> {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// Consumes with the current prefetch, unless that is 0.
async fn subscribe(
    channel: &Channel,
    lane: &mut LaneInput,
) -> Result<Option<Consumer>, BrokerError> {
    let prefetch = *lane.prefetch.borrow_and_update();
    lane.last_received.send_replace(Instant::now());
    if prefetch == 0 {
        return Ok(None);
    }
    within(
        CALL_TIMEOUT,
        channel.basic_qos(prefetch, BasicQosOptions::default()),
    )
    .await?;
    let options = BasicConsumeOptions::default();
    let consuming =
        channel.basic_consume(lane.queue.into(), "".into(), options, FieldTable::default());
    Ok(Some(within(CALL_TIMEOUT, consuming).await?))
}

/// Drops the consumer, but leaves its channel open so that deliveries in hand can be acked until
/// `close`.
async fn stop_taking(live: Live, close: &CancellationToken) {
    let Live {
        connection,
        channel,
        deliveries,
        mut acks,
        inbound,
        ..
    } = live;
    drop((deliveries, inbound));
    loop {
        tokio::select! {
            tag = acks.next() => acks.send(Some(tag)).await,
            () = close.cancelled() => break,
        }
    }
    acks.send(None).await;
    drop(channel);
    drop(within(CALL_TIMEOUT, connection.close(200, "drained".into())).await);
}
