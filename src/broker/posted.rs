//! Publishing with a separate confirm wait per message, so that a missing confirm affects no other
//! message and no connection. AMQP heartbeats detect a dead connection instead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::PublisherConfirm;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::publisher::{Live, Outgoing, Publisher, answer};
use super::{BrokerError, within};

/// How long a message waits for a connection, or for the channel that replaces one.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);
/// A connection that accepts no message for this long is replaced.
const SEND_LIMIT: Duration = Duration::from_secs(3);

/// A message that was sent and is not confirmed yet. Keeps its channel open.
pub struct Posted {
    confirm: PublisherConfirm,
    live: Arc<Live>,
    renew: Arc<Notify>,
}

impl Publisher {
    /// Sends one message, after those sent before. Waits up to 1 s for a connection, and up to 3 s
    /// for the connection to accept the message, but not for the confirm.
    ///
    /// # Errors
    /// [`BrokerError::NotConnected`], [`BrokerError::Blocked`] and [`BrokerError::LongName`] mean
    /// that nothing was sent. After any other error, the message may have been sent.
    pub async fn post(&self, message: &Outgoing) -> Result<Posted, BrokerError> {
        let live = self.sound().await?;
        let confirm = self
            .send(&live, message, Instant::now() + SEND_LIMIT)
            .await?;
        Ok(Posted {
            confirm,
            live,
            renew: Arc::clone(&self.renew),
        })
    }

    /// Waits for a connection whose channel can be used for publishing.
    async fn sound(&self) -> Result<Arc<Live>, BrokerError> {
        let mut live = self.live.clone();
        let is_sound = |live: &Option<Arc<Live>>| {
            live.as_ref()
                .is_some_and(|live| live.is_connected() && !live.is_worn())
        };
        let found = tokio::time::timeout(CONNECTION_WAIT, live.wait_for(is_sound)).await;
        let now = match found {
            Ok(Ok(now)) => now
                .as_ref()
                .map(Arc::clone)
                .ok_or(BrokerError::NotConnected)?,
            Ok(Err(_)) | Err(_) => return Err(BrokerError::NotConnected),
        };
        if now.is_blocked() {
            Err(BrokerError::Blocked)
        } else {
            Ok(now)
        }
    }
}

impl Posted {
    /// Waits at most `limit` for the confirm.
    ///
    /// # Errors
    /// [`BrokerError::TimedOut`]: no confirm came, and the message may have arrived. [`BrokerError::Blocked`]: RabbitMQ
    /// has an alarm and has not read the message yet. [`BrokerError::Link`]: the connection was
    /// lost first. Otherwise, RabbitMQ's answer.
    pub async fn confirmed(self, limit: Duration) -> Result<(), BrokerError> {
        let confirmation = within(limit, self.confirm).await;
        if let Err(BrokerError::TimedOut(_)) = confirmation {
            if self.live.is_blocked() {
                return Err(BrokerError::Blocked);
            }
            self.live.lost.fetch_add(1, Ordering::Relaxed);
            if self.live.is_worn() {
                self.renew.notify_one();
            }
        }
        answer(confirmation?)
    }
}
