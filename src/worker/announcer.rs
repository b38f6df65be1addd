//! Publishes outcome events and replies, all that have come while the last ones were being confirmed in one window. Nobody waits
//! for it: an event is a row until the broker has confirmed it, and the waker publishes those that are left.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::broker::{BrokerError, DIRECT_REPLY, EVENTS, Outgoing, Publisher};
use crate::store::{Announcement, Tables, Writer};
use crate::trace::Trace;

/// Commits whose events wait to be published; those of more are left to the waker.
const WAITING: usize = 4096;
/// Commits whose events are published in one window.
const WINDOW: usize = 256;

/// Where events are handed over.
#[derive(Clone)]
pub struct Announcer(mpsc::Sender<Vec<Announcement>>);

impl Announcer {
    /// Has them published, after all that were handed over before.
    pub(super) fn tell(&self, announcements: Vec<Announcement>) {
        if !announcements.is_empty() && self.0.try_send(announcements).is_err() {
            tracing::debug!("more events than are published: the waker will");
        }
    }
}

/// Publishes what is handed over.
pub struct Announcing<T: Tables> {
    told: mpsc::Receiver<Vec<Announcement>>,
    publisher: Publisher,
    writer: Arc<Writer<T>>,
}

/// Both ends.
#[must_use]
pub fn announcer<T: Tables>(publisher: Publisher, writer: Arc<Writer<T>>) -> (Announcer, Announcing<T>) {
    let (sender, told) = mpsc::channel(WAITING);
    (Announcer(sender), Announcing { told, publisher, writer })
}

impl<T: Tables> Announcing<T> {
    /// Publishes until `end`, and then what is left.
    pub async fn run(mut self, end: CancellationToken) {
        let mut gathered = Vec::with_capacity(WINDOW);
        loop {
            tokio::select! {
                biased;
                _ = self.told.recv_many(&mut gathered, WINDOW) => {}
                () = end.cancelled() => return,
            }
            let all: Vec<Announcement> = gathered.drain(..).flatten().collect();
            announce(&self.publisher, &self.writer, &all).await;
        }
    }
}

/// Publishes outcome events and replies in one confirm window. The confirmed ones are forgotten; what fails is found again by the
/// waker.
pub async fn announce<T: Tables>(publisher: &Publisher, writer: &Writer<T>, announcements: &[Announcement]) {
    if announcements.is_empty() {
        return;
    }
    let parts = |announcement| [event(announcement), reply(announcement)].into_iter().flatten();
    let messages: Vec<Outgoing> = announcements.iter().flat_map(parts).collect();
    let mut answers = publisher.publish_all(&messages).await.into_iter();
    let (mut done, mut half) = (Vec::new(), Vec::new());
    for announcement in announcements {
        let told = event(announcement).and_then(|_| answers.next()).is_none_or(|answer| is_told(&answer));
        let replied = reply(announcement).and_then(|_| answers.next());
        match (told, replied.is_none_or(|answer| is_replied(&answer, announcement.is_old))) {
            (true, true) => done.push(announcement.id),
            (true, false) if announcement.routing_key.is_some() => half.push(announcement.id),
            (true | false, _) => {}
        }
    }
    writer.announced(done);
    if !half.is_empty()
        && let Err(error) = writer.store().told(&half).await
    {
        tracing::debug!(error = crate::fault::chain(&error), "events whose replies are still to come are published again");
    }
}

fn is_told(answer: &Result<(), BrokerError>) -> bool {
    if let Err(error) = answer {
        tracing::warn!(error = crate::fault::chain(error), "an outcome event was not published; the waker will");
    }
    answer.is_ok()
}

/// Whether the reply needs no further try. One that no queue takes is recorded once, here: a queue that is there and refuses it,
/// perhaps because it is full, has an hour to take it.
fn is_replied(answer: &Result<(), BrokerError>, is_old: bool) -> bool {
    let Err(error) = answer else { return true };
    let is_given_up = match error {
        BrokerError::Returned(_) | BrokerError::LongName(_) => true,
        BrokerError::Nacked => is_old,
        _ => false,
    };
    if is_given_up {
        tracing::warn!(error = crate::fault::chain(error), "nobody takes the reply");
    }
    is_given_up
}

/// The event for whoever listens on the exchange: nobody need.
fn event(announcement: &Announcement) -> Option<Outgoing> {
    let routing_key = announcement.routing_key.clone()?;
    Some(Outgoing { exchange: EVENTS, routing_key, ..message(announcement) })
}

/// The reply to the producer's queue. One through RabbitMQ's direct reply-to goes to no queue: a mandatory one would be returned
/// although it arrives (<https://www.rabbitmq.com/docs/3.13/direct-reply-to>).
fn reply(announcement: &Announcement) -> Option<Outgoing> {
    let queue = announcement.reply_to.clone().filter(|queue| !queue.starts_with("dispatch."))?;
    let mandatory = !queue.starts_with(DIRECT_REPLY);
    Some(Outgoing { exchange: "", routing_key: queue, mandatory, ..message(announcement) })
}

fn message(announcement: &Announcement) -> Outgoing {
    let trace = Trace::parse(announcement.traceparent.as_deref(), announcement.tracestate.as_deref());
    Outgoing {
        body: announcement.body.clone(),
        message_id: Some(format!("announcement-{}", announcement.id)),
        correlation_id: announcement.correlation_id.clone(),
        trace: trace.map(|trace| trace.child()),
        ..Outgoing::default()
    }
}
