//! Consuming: a connection per queue, so that a message that kills one stops no other lane, and a supervisor that starts afresh
//! on any doubt.

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

/// Where the deliveries of one queue go.
pub struct LaneInput {
    /// The queue.
    pub queue: &'static str,
    /// Deliveries in hand at most, all replicas' consumers apart; 0: none is taken. Followed while it changes.
    pub prefetch: watch::Receiver<u16>,
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

/// Keeps the consuming connection of one queue.
pub struct QueueConsumer {
    endpoint: Endpoint,
    lane: LaneInput,
    /// The process's, whose part deliveries are that are not rows yet.
    budget: ByteBudget,
    link: watch::Sender<Link>,
    rebuild: Arc<Notify>,
}

/// A connection that has held for this long was well.
const HELD: Duration = Duration::from_secs(5);
/// How often a connection is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(250);

struct Live {
    connection: Connection,
    channel: Channel,
    /// None while nothing is to be taken.
    deliveries: Option<Consumer>,
    /// The consumer is cancelled for one with another prefetch; what it was sent already still comes.
    ending: bool,
    /// Its answer. What comes before it is handed on meanwhile: it may wait until others are acked.
    cancelling: Option<PendingCall>,
    acks: Acks,
    inbound: Taker,
}

type PendingCall = Pin<Box<dyn Future<Output = Result<(), BrokerError>> + Send>>;

impl QueueConsumer {
    /// For this queue. What it takes is charged to `budget`.
    #[must_use]
    pub fn new(endpoint: impl Into<Endpoint>, lane: LaneInput, budget: ByteBudget) -> Self {
        let (link, _) = watch::channel(Link::Down("not connected yet".to_owned()));
        Self { endpoint: endpoint.into(), lane, budget, link, rebuild: Arc::new(Notify::new()) }
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
    pub async fn run(mut self, cancel: CancellationToken, close: CancellationToken) {
        let mut reconnect = Reconnect::default();
        while !cancel.is_cancelled() {
            let (why, waited) = match self.open().await {
                Ok(mut live) => {
                    let since = Instant::now();
                    self.link.send_replace(Link::Up(since));
                    let why = self.consume(&mut live, &cancel).await;
                    let waited = live.inbound.waits();
                    // A connection that a message kills at once is not rebuilt at full speed.
                    if since.elapsed() > HELD {
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
            tracing::warn!(queue = self.lane.queue, why, "the consumer starts afresh");
            metrics::counter!(names::RECONNECTS, "link" => self.lane.queue).increment(1);
            self.link.send_replace(Link::Down(why));
            let delay = reconnect.next_delay();
            let pause = async {
                // RabbitMQ gives up a connection that is not read from; another one would wait as this one did.
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
        topology::look(&channel, lane.queue).await.map_err(|error| BrokerError::Topology(crate::fault::chain(&error)))?;
        let deliveries = subscribe(&channel, lane).await?;
        let acks = Acks::of(channel.clone());
        Ok(Live { connection, channel, deliveries, ending: false, cancelling: None, acks, inbound: taker })
    }

    /// Hands deliveries on until something is in doubt; returns what.
    async fn consume(&mut self, live: &mut Live, cancel: &CancellationToken) -> String {
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return "draining".to_owned(),
                () = self.rebuild.notified() => return "the queue has messages and none came".to_owned(),
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
                            return "the lane is gone".to_owned();
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
                () = tokio::time::sleep(LOOK) => {
                    if live.inbound.waits() {
                        // It is not deaf: the next one is there and waits for memory.
                        self.lane.last_received.send_replace(Instant::now());
                    }
                    if !live.connection.status().connected() || !live.channel.status().connected() {
                        return "the connection is closed".to_owned();
                    }
                }
            }
        }
    }

    /// The broker takes another prefetch for a new consumer only: the old one is cancelled, and followed by a new one when all
    /// that it was sent has come. What is in hand stays in hand.
    async fn change_prefetch(&mut self, live: &mut Live) -> Result<(), BrokerError> {
        let Some(deliveries) = &live.deliveries else {
            live.deliveries = subscribe(&live.channel, &mut self.lane).await?;
            return Ok(());
        };
        if !live.ending {
            live.ending = true;
            let (channel, tag) = (live.channel.clone(), deliveries.tag());
            live.cancelling =
                Some(Box::pin(
                    async move { within(CALL_TIMEOUT, channel.basic_cancel(tag, BasicCancelOptions::default())).await },
                ));
        }
        Ok(())
    }
}

async fn next(deliveries: &mut Option<Consumer>) -> Option<lapin::Result<lapin::message::Delivery>> {
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

/// Consumes with the prefetch of now, unless that is 0.
async fn subscribe(channel: &Channel, lane: &mut LaneInput) -> Result<Option<Consumer>, BrokerError> {
    let prefetch = *lane.prefetch.borrow_and_update();
    lane.last_received.send_replace(Instant::now());
    if prefetch == 0 {
        return Ok(None);
    }
    within(CALL_TIMEOUT, channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let options = BasicConsumeOptions::default();
    let consuming = channel.basic_consume(lane.queue.into(), "".into(), options, FieldTable::default());
    Ok(Some(within(CALL_TIMEOUT, consuming).await?))
}

/// Drops the consumer, but leaves its channel open so that deliveries in hand can be acked until `close`.
async fn stop_taking(live: Live, close: &CancellationToken) {
    let Live { connection, channel, deliveries, mut acks, inbound, .. } = live;
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
