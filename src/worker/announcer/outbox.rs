//! Sends the messages of one connection, in order. Each waits for its own confirm, so a queue that
//! does not confirm does not delay the others.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::targets::{Admission, Change, Kind, Reaction, Sending, Targets};
use super::verdict::Fate;
use crate::broker::{BrokerError, Outgoing, Publisher};
use crate::fault::chain;
use crate::store::LEFT_ALONE;

/// The most messages that wait to be sent; further ones are published when their rows are due.
const QUEUED: usize = 4096;
/// A message that could not be sent for this long after it was handed over is published when its
/// row is due.
const UNSENT_FOR: Duration = Duration::from_secs(3);
/// The latest time, after it was handed over, at which a message is settled. No other process
/// takes its row before [`LEFT_ALONE`], which is longer, so no other process publishes it
/// meanwhile.
const IN_HAND: Duration = Duration::from_secs(9);
const _: () = assert!(IN_HAND.as_secs() < LEFT_ALONE.as_secs());

/// The sending half of an outbox.
pub(super) struct Outbox(mpsc::Sender<Item>);

struct Item {
    message: Outgoing,
    handed_over: Instant,
    fate: oneshot::Sender<Fate>,
}

/// The receiving half of an outbox, which sends.
pub(super) struct OutboxRun {
    items: mpsc::Receiver<Item>,
    publisher: Publisher,
    targets: Targets<Item>,
    kind: Kind,
    in_flight: FuturesUnordered<BoxFuture<'static, Reacted>>,
}

/// The reaction of a target to a message, which is no longer in flight.
struct Reacted {
    place: String,
    sending: Sending,
    reaction: Reaction,
}

/// Creates both halves of an outbox.
pub(super) fn outbox(kind: Kind, publisher: Publisher) -> (Outbox, OutboxRun) {
    let (sender, items) = mpsc::channel(QUEUED);
    let targets = Targets::new(kind);
    (
        Outbox(sender),
        OutboxRun {
            items,
            publisher,
            targets,
            kind,
            in_flight: FuturesUnordered::new(),
        },
    )
}

impl Outbox {
    /// Queues a message behind the earlier ones, and returns its fate when it is settled.
    pub(super) fn hand_over(
        &self,
        message: Outgoing,
        handed_over: Instant,
    ) -> impl Future<Output = Fate> + use<> {
        let (fate, reported) = oneshot::channel();
        // If the queue is full, the sender of the fate is dropped at once: nothing was sent.
        drop(self.0.try_send(Item {
            message,
            handed_over,
            fate,
        }));
        async { reported.await.unwrap_or(Fate::Unsent) }
    }
}

impl OutboxRun {
    /// Sends until the sending half is dropped and every message is settled.
    pub(super) async fn run(mut self) {
        loop {
            let has_room = self.has_room();
            tokio::select! {
                biased;
                Some(reacted) = self.in_flight.next() => self.react(reacted).await,
                item = self.items.recv(), if has_room => match item {
                    Some(item) => {
                        let admission = self.targets.admit(&item.message.routing_key, Instant::now());
                        self.carry_out(admission, item).await;
                    }
                    None if self.in_flight.is_empty() => return,
                    None => self.rest().await,
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.targets.in_flight_at_most()
    }

    /// Settles the messages in flight and those that wait for them; no others arrive.
    async fn rest(&mut self) {
        while let Some(reacted) = self.in_flight.next().await {
            self.react(reacted).await;
        }
    }

    async fn react(&mut self, reacted: Reacted) {
        let Reacted {
            place,
            sending,
            reaction,
        } = reacted;
        let change = self
            .targets
            .react(&place, sending, reaction, Instant::now());
        self.report(&place, change);
        while let Some((item, admission)) =
            self.targets.next(&place, self.has_room(), Instant::now())
        {
            self.carry_out(admission, item).await;
        }
    }

    async fn carry_out(&mut self, admission: Admission, item: Item) {
        match admission {
            Admission::Send(sending) => self.send(sending, item).await,
            Admission::Held(delay) => settle(item.fate, Fate::Held(delay)),
            Admission::Wait => {
                let place = item.message.routing_key.clone();
                if let Some(item) = self.targets.wait(&place, item) {
                    settle(item.fate, Fate::Unsent);
                }
            }
        }
    }

    async fn send(&mut self, sending: Sending, item: Item) {
        let Item {
            message,
            handed_over,
            fate,
        } = item;
        let sent = if handed_over.elapsed() < UNSENT_FOR {
            Some(self.publisher.post(&message).await)
        } else {
            None
        };
        let place = message.routing_key;
        let (not_sent, reaction) = match sent {
            Some(Ok(posted)) => {
                let patience = sending
                    .patience
                    .min(IN_HAND.saturating_sub(handed_over.elapsed()));
                let confirmed = async move {
                    let (answer, reaction) = judged(posted.confirmed(patience).await);
                    settle(fate, answer);
                    Reacted {
                        place,
                        sending,
                        reaction,
                    }
                };
                return self.in_flight.push(Box::pin(confirmed));
            }
            Some(Err(BrokerError::LongName(_))) => (Fate::Returned, Reaction::None),
            // The connection does not accept the message, and is replaced.
            Some(Err(BrokerError::TimedOut(_))) => (Fate::Unsent, Reaction::Lost),
            Some(Err(error)) => judged(Err(error)),
            None => (Fate::Unsent, Reaction::None),
        };
        settle(fate, not_sent);
        self.targets
            .react(&place, sending, reaction, Instant::now());
    }

    fn report(&self, place: &str, change: Change) {
        match (self.kind, change) {
            (_, Change::Same) => {}
            (Kind::Events, Change::Silent) => {
                tracing::warn!(
                    routing_key = place,
                    "events are not confirmed: a queue bound for them does not answer"
                );
            }
            (Kind::Replies, Change::Silent) => {
                tracing::warn!(
                    queue = place,
                    "a reply queue does not confirm: its replies are postponed"
                );
            }
            (Kind::Events, Change::Confirms) => {
                tracing::info!(routing_key = place, "events are confirmed again")
            }
            (Kind::Replies, Change::Confirms) => {
                tracing::info!(queue = place, "a reply queue confirms again")
            }
        }
    }
}

/// Reports the fate of a message; its receiver may be gone.
fn settle(sender: oneshot::Sender<Fate>, fate: Fate) {
    let _receiver_gone = sender.send(fate);
}

/// Returns what an answer means for its message, and for its target.
fn judged(answer: Result<(), BrokerError>) -> (Fate, Reaction) {
    match answer {
        Ok(()) => (Fate::Confirmed, Reaction::Answered),
        Err(BrokerError::Nacked) => (Fate::Refused, Reaction::Answered),
        Err(BrokerError::Returned(_)) => (Fate::Returned, Reaction::Answered),
        Err(BrokerError::TimedOut(_)) => (Fate::Unconfirmed, Reaction::Silent),
        Err(BrokerError::Blocked) => (Fate::Unsent, Reaction::None),
        Err(error) => {
            tracing::debug!(
                error = chain(&error),
                "an event or a reply could not be sent: there is no connection; it is sent again"
            );
            (Fate::Unsent, Reaction::Lost)
        }
    }
}
