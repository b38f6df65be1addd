//! Replies to a producer through RabbitMQ's direct reply-to. No queue is declared, so the producer
//! needs no permission to configure. Replies that arrive after the connection is gone are lost
//! (<https://www.rabbitmq.com/docs/3.13/direct-reply-to>).

use std::sync::Arc;
use std::time::Duration;

use crate::tls_policy::Endpoint;
use futures_util::StreamExt;
use lapin::Consumer;
use lapin::options::BasicConsumeOptions;
use lapin::types::FieldTable;

use super::publisher::{Live, PUBLISHER, Publisher, open};
use super::{BrokerError, CALL_TIMEOUT, within};
use crate::message::DIRECT_REPLY;

/// The interval at which an idle connection is checked.
const CHECK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct Reply {
    /// The `correlation_id` of the message.
    pub correlation_id: Option<String>,
    /// The body, JSON.
    pub body: Vec<u8>,
}

/// The replies to the messages that one publisher sends with [`DIRECT_REPLY`] as `reply_to`.
pub struct Replies {
    live: Arc<Live>,
    consumer: Consumer,
}

impl Publisher {
    /// Connects once, without a supervisor, as a producer that receives replies. Consuming starts
    /// first, on the channel that publishes, as direct reply-to requires.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn connect_with_replies(url: &Endpoint) -> Result<(Self, Replies), BrokerError> {
        let live = Arc::new(open(url, PUBLISHER).await?);
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consuming = live.channel.basic_consume(
            DIRECT_REPLY.into(),
            "".into(),
            options,
            FieldTable::default(),
        );
        let consumer = within(CALL_TIMEOUT, consuming).await?;
        Ok((Self::over(Arc::clone(&live)), Replies { live, consumer }))
    }
}

impl Replies {
    /// Waits for the next reply.
    ///
    /// # Errors
    /// [`BrokerError`] if the connection is lost, and with it all further replies.
    pub async fn next(&mut self) -> Result<Reply, BrokerError> {
        loop {
            tokio::select! {
                next = self.consumer.next() => {
                    let delivery = next.ok_or(BrokerError::NotConnected)??;
                    let correlation_id = delivery.properties.correlation_id().as_ref().map(|id| id.as_str().to_owned());
                    return Ok(Reply { correlation_id, body: delivery.data });
                }
                () = tokio::time::sleep(CHECK_EVERY) => {
                    if !self.live.is_connected() {
                        return Err(BrokerError::NotConnected);
                    }
                }
            }
        }
    }
}
