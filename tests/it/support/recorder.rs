//! Messages as a consumer receives them: the outcome events of a world, and the messages left in
//! its queues.

use std::fmt::Write as _;

use dispatch_worker::broker::{EVENTS, INTAKE_QUEUE};
use lapin::message::BasicGetMessage;
use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

use super::world::{TestWorld, queues};

const QUEUE: &str = "canaries";
/// The number of messages that are read from each queue.
const LOOKED_AT: usize = 100;

/// A queue for every outcome event of a world. Each read opens a new connection, as servers may
/// have been killed meanwhile.
pub(super) struct EventRecorder;

impl TestWorld {
    /// Records the outcome events from now on, for the search at the world's end. A world of
    /// [`TestWorld::acme`] does so anyway.
    pub(crate) async fn records_events(&self) {
        self.recorder().await;
    }
}

impl EventRecorder {
    pub(super) async fn new(amqp_url: &SecretString) -> Self {
        let (connection, channel) = open(amqp_url).await;
        let (durable, arguments) = (QueueDeclareOptions::durable(), FieldTable::default());
        channel
            .queue_declare(QUEUE.into(), durable, arguments.clone())
            .await
            .expect("a queue");
        let binding = QueueBindOptions::default();
        channel
            .queue_bind(QUEUE.into(), EVENTS.into(), "#".into(), binding, arguments)
            .await
            .expect("a binding");
        close(connection).await;
        Self
    }

    /// Returns the properties and bodies of the events since the last call.
    pub(super) async fn recorded(&self, amqp_url: &SecretString) -> String {
        let (connection, channel) = open(amqp_url).await;
        let mut recorded = String::new();
        while let Some(got) = get(&channel, QUEUE).await {
            describe(&got, &mut recorded);
        }
        close(connection).await;
        recorded
    }
}

/// Consumes what is left in the queues that the program writes to; returns properties and bodies
/// by queue. Messages of producers are left out: they may contain the producer's secrets and are
/// parked unchanged.
pub(super) async fn left_behind(amqp_url: &SecretString) -> Vec<(String, String)> {
    let (connection, channel) = open(amqp_url).await;
    let mut places = Vec::new();
    for queue in queues().filter(|queue| *queue != INTAKE_QUEUE) {
        let mut left = String::new();
        for _ in 0..LOOKED_AT {
            let Some(got) = get(&channel, queue).await else {
                break;
            };
            if !format!("{:?}", got.delivery.properties).contains(INTAKE_QUEUE) {
                describe(&got, &mut left);
            }
        }
        places.push((format!("a message in {queue}"), left));
    }
    close(connection).await;
    places
}

async fn get(channel: &Channel, queue: &str) -> Option<BasicGetMessage> {
    channel
        .basic_get(queue.into(), BasicGetOptions { no_ack: true })
        .await
        .expect("RabbitMQ answers")
}

fn describe(got: &BasicGetMessage, text: &mut String) {
    let body = String::from_utf8_lossy(&got.delivery.data);
    writeln!(
        text,
        "{} {:?} {body}",
        got.delivery.routing_key, got.delivery.properties
    )
    .expect("a string takes text");
}

async fn open(amqp_url: &SecretString) -> (Connection, Channel) {
    let url = amqp_url.expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("RabbitMQ accepts a connection");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

async fn close(connection: Connection) {
    connection
        .close(200, "done".into())
        .await
        .expect("RabbitMQ closes the connection");
}
