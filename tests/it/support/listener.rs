//! A producer that consumes the outcome events of its jobs.

use std::time::Duration;

use dispatch_worker::broker::EVENTS;
use dispatch_worker::trace::TRACEPARENT;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::wait::wait_for;
use super::world::TestWorld;

const SOON: Duration = Duration::from_secs(30);

/// A consumer of outcome events.
pub(crate) struct Listener {
    _connection: Connection,
    channel: Channel,
}

impl Listener {
    pub(crate) async fn new(world: &TestWorld) -> Self {
        let url = world.amqp_url.expose_secret();
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("RabbitMQ accepts a connection");
        let channel = connection.create_channel().await.expect("a channel");
        Self {
            _connection: connection,
            channel,
        }
    }

    /// Declares a queue of this connection; with a binding it receives outcome events.
    pub(crate) async fn queue(&self, name: &str, events: Option<&str>) {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(name.into(), options, FieldTable::default())
            .await
            .expect("a queue of its own");
        self.bind(name, events).await;
    }

    /// Declares a queue that lives as long as its vhost: a suspended exclusive queue would block
    /// the close of its connection.
    pub(crate) async fn lasting_queue(&self, name: &str) {
        let options = QueueDeclareOptions::durable();
        self.channel
            .queue_declare(name.into(), options, FieldTable::default())
            .await
            .expect("a queue");
    }

    /// Binds a queue to the outcome events with this routing key.
    pub(crate) async fn bind(&self, name: &str, events: Option<&str>) {
        if let Some(key) = events {
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            self.channel
                .queue_bind(name.into(), EVENTS.into(), key.into(), options, arguments)
                .await
                .expect("a binding");
        }
    }

    /// Declares a queue that refuses every message; with a binding it refuses outcome events.
    pub(crate) async fn full_queue(&self, name: &str, events: Option<&str>) {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(0));
        arguments.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        self.channel
            .queue_declare(name.into(), options, arguments)
            .await
            .expect("a queue of its own");
        self.bind(name, events).await;
    }

    /// Waits for the next message of a queue; returns its correlation id and its body.
    pub(crate) async fn next(&self, queue: &str) -> (Option<String>, Value) {
        wait_for(&format!("a message in {queue}"), SOON, async || {
            self.try_next(queue).await.ok_or("no message")
        })
        .await
    }

    /// Waits for the next message of a queue; returns its header `traceparent` and its body.
    pub(crate) async fn next_traced(&self, queue: &str) -> (Option<String>, Value) {
        wait_for(&format!("a message in {queue}"), SOON, async || {
            let (_, traceparent, body) = self.get(queue).await.ok_or("none came")?;
            Ok::<_, &str>((traceparent, body))
        })
        .await
    }

    /// Returns the next message, if there is one now.
    pub(crate) async fn try_next(&self, queue: &str) -> Option<(Option<String>, Value)> {
        self.get(queue)
            .await
            .map(|(correlation_id, _, body)| (correlation_id, body))
    }

    async fn get(&self, queue: &str) -> Option<(Option<String>, Option<String>, Value)> {
        let got = self
            .channel
            .basic_get(queue.into(), BasicGetOptions::default())
            .await
            .expect("RabbitMQ answers")?;
        got.delivery
            .ack(BasicAckOptions::default())
            .await
            .expect("RabbitMQ accepts the ack");
        let correlation_id = got
            .properties
            .correlation_id()
            .as_ref()
            .map(|id| id.as_str().to_owned());
        let headers = got.properties.headers().as_ref();
        let traceparent = headers.and_then(|headers| match headers.inner().get(TRACEPARENT) {
            Some(AMQPValue::LongString(text)) => {
                Some(String::from_utf8_lossy(text.as_bytes()).into_owned())
            }
            _ => None,
        });
        Some((
            correlation_id,
            traceparent,
            serde_json::from_slice(&got.delivery.data).expect("events are JSON"),
        ))
    }
}
