//! A producer that listens to what becomes of its jobs.

use std::time::Duration;

use dispatch_worker::broker::EVENTS;
use lapin::options::{BasicAckOptions, BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::wait::wait_for;
use super::world::TestWorld;

const SOON: Duration = Duration::from_secs(30);

/// A producer that listens.
pub(crate) struct Listener {
    _connection: Connection,
    channel: Channel,
}

impl Listener {
    pub(crate) async fn new(world: &TestWorld) -> Self {
        let url = world.amqp_url.expose_secret();
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self { _connection: connection, channel }
    }

    /// A queue of its own; with a binding it receives outcome events.
    pub(crate) async fn queue(&self, name: &str, events: Option<&str>) {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
        if let Some(key) = events {
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            self.channel.queue_bind(name.into(), EVENTS.into(), key.into(), options, arguments).await.unwrap();
        }
    }

    /// The next message of a queue: its correlation id and its body.
    pub(crate) async fn next(&self, queue: &str) -> (Option<String>, Value) {
        wait_for(&format!("a message in {queue}"), SOON, async || self.try_next(queue).await.ok_or("none came")).await
    }

    /// The next message, if there is one now.
    pub(crate) async fn try_next(&self, queue: &str) -> Option<(Option<String>, Value)> {
        let got = self.channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap()?;
        got.delivery.ack(BasicAckOptions::default()).await.unwrap();
        let correlation_id = got.properties.correlation_id().as_ref().map(|id| id.as_str().to_owned());
        Some((correlation_id, serde_json::from_slice(&got.delivery.data).unwrap()))
    }
}
