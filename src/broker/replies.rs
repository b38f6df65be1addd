//! What becomes of a producer's messages, told to the producer itself through RabbitMQ's direct reply-to: no queue is declared, so
//! no right to configure is needed, and what comes after the connection is gone is lost
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

/// How often a connection is looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(250);

/// One reply.
#[derive(Debug)]
pub struct Reply {
    /// As the message had it.
    pub correlation_id: Option<String>,
    /// JSON.
    pub body: Vec<u8>,
}

/// The replies to what one publisher sends with [`DIRECT_REPLY`] as its `reply_to`.
pub struct Replies {
    live: Arc<Live>,
    consumer: Consumer,
}

impl Publisher {
    /// Connects once, without a supervisor, as a producer that listens: consumed first, on the channel that publishes.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn connect_with_replies(url: &Endpoint) -> Result<(Self, Replies), BrokerError> {
        let live = Arc::new(open(url, PUBLISHER).await?);
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consuming = live.channel.basic_consume(DIRECT_REPLY.into(), "".into(), options, FieldTable::default());
        let consumer = within(CALL_TIMEOUT, consuming).await?;
        Ok((Self::over(Arc::clone(&live)), Replies { live, consumer }))
    }
}

impl Replies {
    /// The next reply.
    ///
    /// # Errors
    /// [`BrokerError`] when the connection is gone, and with it every reply to come.
    pub async fn next(&mut self) -> Result<Reply, BrokerError> {
        loop {
            tokio::select! {
                next = self.consumer.next() => {
                    let delivery = next.ok_or(BrokerError::NotConnected)??;
                    let correlation_id = delivery.properties.correlation_id().as_ref().map(|id| id.as_str().to_owned());
                    return Ok(Reply { correlation_id, body: delivery.data });
                }
                () = tokio::time::sleep(LOOK) => {
                    if !self.live.is_connected() {
                        return Err(BrokerError::NotConnected);
                    }
                }
            }
        }
    }
}
