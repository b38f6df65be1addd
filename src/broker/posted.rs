//! Publishing where each message waits for its own confirm: one that never comes costs no other message anything, and no
//! connection. That a connection is dead is found by AMQP's heartbeats instead.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lapin::PublisherConfirm;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::publisher::{Live, Outgoing, Publisher, answer};
use super::{BrokerError, within};

/// How long a message waits for a connection, or for a channel that replaces one.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection that takes no message for so long is replaced.
const SENDING: Duration = Duration::from_secs(3);

/// A message that was sent and is not confirmed yet. It keeps its channel open.
pub struct Posted {
    confirm: PublisherConfirm,
    live: Arc<Live>,
    renew: Arc<Notify>,
}

impl Publisher {
    /// Sends one message, behind those that were sent before. Waits for a connection for 1 s, and for the connection to take the
    /// message for 3 s; not for its confirm.
    ///
    /// # Errors
    /// [`BrokerError::NotConnected`], [`BrokerError::Blocked`] and [`BrokerError::LongName`]: nothing was sent. Otherwise it may
    /// have been.
    pub async fn post(&self, message: &Outgoing) -> Result<Posted, BrokerError> {
        let live = self.sound().await?;
        let confirm = self.send(&live, message, Instant::now() + SENDING).await?;
        Ok(Posted { confirm, live, renew: Arc::clone(&self.renew) })
    }

    /// A connection whose channel may be published on.
    async fn sound(&self) -> Result<Arc<Live>, BrokerError> {
        let mut live = self.live.clone();
        let is_sound = |live: &Option<Arc<Live>>| live.as_ref().is_some_and(|live| live.is_connected() && !live.is_worn());
        let found = tokio::time::timeout(PATIENCE, live.wait_for(is_sound)).await;
        let now = match found {
            Ok(Ok(now)) => now.as_ref().map(Arc::clone).ok_or(BrokerError::NotConnected)?,
            Ok(Err(_)) | Err(_) => return Err(BrokerError::NotConnected),
        };
        if now.is_blocked() { Err(BrokerError::Blocked) } else { Ok(now) }
    }
}

impl Posted {
    /// Waits for the confirm, `limit` at most.
    ///
    /// # Errors
    /// [`BrokerError::TimedOut`]: it did not come, and the message may have arrived; [`BrokerError::Blocked`]: RabbitMQ has an
    /// alarm and has not read the message yet; [`BrokerError::Link`]: the connection was lost first; otherwise what RabbitMQ
    /// answered.
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
