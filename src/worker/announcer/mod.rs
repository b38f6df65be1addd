//! Publishes outcome events and replies, in a task and on connections of their own. An event is a row until it is confirmed, or
//! given up: what commits hand over is published at once, and what is left of it when it is due.
//!
//! **Invariant:** nothing but events and replies waits for an event or a reply.

mod dropped;
mod due;
mod message;
mod outbox;
mod targets;
mod verdict;

use std::sync::Arc;

use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use due::DueAnnouncements;

use crate::broker::Publisher;
use crate::fault::chain;
use crate::store::{Announcement, Store, Tables, Unsettled, Writer};
use dropped::Drops;
use outbox::{Outbox, OutboxRun, outbox};
use targets::Kind;
use verdict::{Fate, Settled, settled};

/// Commits whose events wait to be published; those of more are left to their rows.
const WAITING: usize = 4096;
/// Rounds of due rows that wait to be published.
const DUE_WAITING: usize = 2;
/// Announcements that are published at a time.
const ROWS: usize = 4096;
/// What is left of so many announcements is stored at a time.
const SETTLED: usize = 256;

/// Where events are handed over.
#[derive(Clone)]
pub struct Announcer(mpsc::Sender<HandedOver>);

/// Announcements in the order in which they are published, and since when their rows are left alone.
struct HandedOver {
    announcements: Vec<Announcement>,
    since: Instant,
}

impl HandedOver {
    fn now(announcements: Vec<Announcement>) -> Self {
        Self { announcements, since: Instant::now() }
    }
}

impl Announcer {
    /// Has them published, after all that were handed over before. Nobody waits.
    pub(super) fn tell(&self, announcements: Vec<Announcement>) {
        if !announcements.is_empty() && self.0.try_send(HandedOver::now(announcements)).is_err() {
            tracing::debug!("more events than can be published at once: they are published when their rows are due");
        }
    }
}

/// The connections of events and replies.
pub struct EventLinks {
    /// For `dispatch.events`.
    pub events: Publisher,
    /// For producers' queues.
    pub replies: Publisher,
}

/// Publishes what is handed over.
pub struct Announcing<T: Tables> {
    told: mpsc::Receiver<HandedOver>,
    due: mpsc::Receiver<HandedOver>,
    events: (Outbox, OutboxRun),
    replies: (Outbox, OutboxRun),
    writer: Arc<Writer<T>>,
}

/// Both ends, and what hands rows over that are due. `longest`: announcements are dropped at this age.
#[must_use]
pub fn announcer<T: Tables>(
    links: EventLinks,
    writer: Arc<Writer<T>>,
    longest: std::time::Duration,
) -> (Announcer, Announcing<T>, DueAnnouncements) {
    let (sender, told) = mpsc::channel(WAITING);
    let (due_sender, due) = mpsc::channel(DUE_WAITING);
    let store = writer.store().clone();
    let events = outbox(Kind::Events, links.events.clone());
    let replies = outbox(Kind::Replies, links.replies.clone());
    let taker = DueAnnouncements { store, links, longest, publishes: due_sender };
    (Announcer(sender), Announcing { told, due, events, replies, writer }, taker)
}

type Published = (Announcement, Option<Fate>, Option<Fate>);

impl<T: Tables> Announcing<T> {
    /// Publishes until `end`, and then what is left.
    pub async fn run(self, end: CancellationToken) {
        let (rests, to_store) = mpsc::channel(ROWS);
        let (events, events_run) = self.events;
        let (replies, replies_run) = self.replies;
        let store = self.writer.store().clone();
        let rows = Rows { told: self.told, due: self.due, events, replies, writer: self.writer, rests };
        tokio::join!(rows.publish(end), store_rests(store, to_store), events_run.run(), replies_run.run());
    }
}

/// Announcements on their way.
struct Rows<T: Tables> {
    told: mpsc::Receiver<HandedOver>,
    due: mpsc::Receiver<HandedOver>,
    events: Outbox,
    replies: Outbox,
    writer: Arc<Writer<T>>,
    rests: mpsc::Sender<Unsettled>,
}

impl<T: Tables> Rows<T> {
    async fn publish(mut self, end: CancellationToken) {
        let mut published: FuturesUnordered<BoxFuture<'static, Published>> = FuturesUnordered::new();
        let mut drops = Drops::default();
        loop {
            tokio::select! {
                biased;
                () = drops.due() => drops.log(),
                Some(one) = published.next() => {
                    let others = std::iter::from_fn(|| published.next().now_or_never().flatten());
                    let all: Vec<Published> = std::iter::once(one).chain(others.take(SETTLED)).collect();
                    self.settle(&all, &mut drops);
                }
                Some(handed_over) = next(&mut self.told, &mut self.due), if published.len() < ROWS => {
                    let HandedOver { announcements, since } = handed_over;
                    published.extend(announcements.into_iter().map(|announcement| self.send(announcement, since)));
                }
                () = end.cancelled(), if published.is_empty() => return drops.log(),
            }
        }
    }

    fn send(&self, announcement: Announcement, since: Instant) -> BoxFuture<'static, Published> {
        let event = message::event(&announcement).map(|event| self.events.hand_over(event, since));
        let reply = message::reply(&announcement).map(|reply| self.replies.hand_over(reply, since));
        Box::pin(async move {
            let (event, reply) = tokio::join!(OptionFuture::from(event), OptionFuture::from(reply));
            (announcement, event, reply)
        })
    }

    /// What is published or given up is forgotten; what is left of it is put off.
    fn settle(&self, all: &[Published], drops: &mut Drops) {
        let mut over = Vec::new();
        for (announcement, event, reply) in all {
            let Settled { is_over, rest, dropped } = settled(announcement, *event, *reply);
            drops.add(dropped);
            if is_over {
                over.push(announcement.id);
            }
            if let Some(rest) = rest
                && self.rests.try_send(rest).is_err()
            {
                tracing::debug!("Postgres does not take what is left of events: they are published again");
            }
        }
        if !over.is_empty() {
            self.writer.announced(over);
        }
    }
}

/// Whichever comes first: neither keeps the other one waiting.
async fn next(told: &mut mpsc::Receiver<HandedOver>, due: &mut mpsc::Receiver<HandedOver>) -> Option<HandedOver> {
    tokio::select! {
        Some(handed_over) = told.recv() => Some(handed_over),
        Some(handed_over) = due.recv() => Some(handed_over),
        else => None,
    }
}

/// Stores what is left of announcements, in groups, until nothing comes any more.
async fn store_rests(store: Store, mut rests: mpsc::Receiver<Unsettled>) {
    let mut gathered = Vec::with_capacity(SETTLED);
    while rests.recv_many(&mut gathered, SETTLED).await > 0 {
        if let Err(error) = store.settle_announcements(&gathered).await {
            tracing::warn!(
                error = chain(&error),
                announcements = gathered.len(),
                "what is left of events is not stored: they are published again"
            );
        }
        gathered.clear();
    }
}
