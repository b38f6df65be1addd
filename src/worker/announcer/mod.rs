//! Publishes outcome events and replies, concurrently with everything else and on connections of
//! its own. An announcement is a row until its event and its reply are confirmed or dropped: it is
//! published once when a commit passes it on, and again when its row is due.
//!
//! **Invariant:** only events and replies wait for an event or a reply.

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

/// The most commits whose events wait to be published; those of further commits are published when
/// their rows are due.
const WAITING: usize = 4096;
/// The most rounds of due rows that wait to be published.
const DUE_WAITING: usize = 2;
/// The most announcements in flight.
const ROWS: usize = 4096;
/// The most announcements that are settled and stored together.
const SETTLED: usize = 256;

/// The sending half of the announcer.
#[derive(Clone)]
pub struct Announcer(mpsc::Sender<HandedOver>);

/// Announcements in the order in which they are published, and the time since which their rows are
/// this process's.
struct HandedOver {
    announcements: Vec<Announcement>,
    since: Instant,
}

impl HandedOver {
    fn now(announcements: Vec<Announcement>) -> Self {
        Self {
            announcements,
            since: Instant::now(),
        }
    }
}

impl Announcer {
    /// Queues announcements behind the earlier ones, and returns at once.
    pub(super) fn announce(&self, announcements: Vec<Announcement>) {
        if !announcements.is_empty() && self.0.try_send(HandedOver::now(announcements)).is_err() {
            tracing::debug!(
                "the queue of events is full: they are published when their rows are due"
            );
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

/// The receiving half of the announcer, which publishes.
pub struct Announcing<T: Tables> {
    queued: mpsc::Receiver<HandedOver>,
    due: mpsc::Receiver<HandedOver>,
    events: (Outbox, OutboxRun),
    replies: (Outbox, OutboxRun),
    writer: Arc<Writer<T>>,
}

/// Creates both halves of the announcer, and the part that takes rows that are due. Announcements
/// older than `longest` are dropped.
#[must_use]
pub fn announcer<T: Tables>(
    links: EventLinks,
    writer: Arc<Writer<T>>,
    longest: std::time::Duration,
) -> (Announcer, Announcing<T>, DueAnnouncements) {
    let (sender, queued) = mpsc::channel(WAITING);
    let (due_sender, due) = mpsc::channel(DUE_WAITING);
    let store = writer.store().clone();
    let events = outbox(Kind::Events, links.events.clone());
    let replies = outbox(Kind::Replies, links.replies.clone());
    let taker = DueAnnouncements {
        store,
        links,
        longest,
        publishes: due_sender,
    };
    (
        Announcer(sender),
        Announcing {
            queued,
            due,
            events,
            replies,
            writer,
        },
        taker,
    )
}

type Published = (Announcement, Option<Fate>, Option<Fate>);

impl<T: Tables> Announcing<T> {
    /// Publishes until `end`, and then everything that is still queued.
    pub async fn run(self, end: CancellationToken) {
        let (rests, to_store) = mpsc::channel(ROWS);
        let (events, events_run) = self.events;
        let (replies, replies_run) = self.replies;
        let store = self.writer.store().clone();
        let rows = Rows {
            queued: self.queued,
            due: self.due,
            events,
            replies,
            writer: self.writer,
            rests,
        };
        tokio::join!(
            rows.publish(end),
            store_rests(store, to_store),
            events_run.run(),
            replies_run.run()
        );
    }
}

/// The loop over the announcements in flight.
struct Rows<T: Tables> {
    queued: mpsc::Receiver<HandedOver>,
    due: mpsc::Receiver<HandedOver>,
    events: Outbox,
    replies: Outbox,
    writer: Arc<Writer<T>>,
    rests: mpsc::Sender<Unsettled>,
}

impl<T: Tables> Rows<T> {
    async fn publish(mut self, end: CancellationToken) {
        let mut published: FuturesUnordered<BoxFuture<'static, Published>> =
            FuturesUnordered::new();
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
                Some(handed_over) = next(&mut self.queued, &mut self.due), if published.len() < ROWS => {
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

    /// Deletes the rows of announcements that are published or dropped, and postpones the others.
    fn settle(&self, all: &[Published], drops: &mut Drops) {
        let mut over = Vec::new();
        for (announcement, event, reply) in all {
            let Settled {
                is_over,
                rest,
                dropped,
            } = settled(announcement, *event, *reply);
            drops.add(dropped);
            if is_over {
                over.push(announcement.id);
            }
            if let Some(rest) = rest
                && self.rests.try_send(rest).is_err()
            {
                tracing::debug!(
                    "too many postponed events wait to be stored: they are published again when their rows are due"
                );
            }
        }
        if !over.is_empty() {
            self.writer.announced(over);
        }
    }
}

/// Receives from whichever channel is ready first.
async fn next(
    queued: &mut mpsc::Receiver<HandedOver>,
    due: &mut mpsc::Receiver<HandedOver>,
) -> Option<HandedOver> {
    tokio::select! {
        Some(handed_over) = queued.recv() => Some(handed_over),
        Some(handed_over) = due.recv() => Some(handed_over),
        else => None,
    }
}

/// Stores the state of postponed announcements, in groups, until the channel is closed.
async fn store_rests(store: Store, mut rests: mpsc::Receiver<Unsettled>) {
    let mut gathered = Vec::with_capacity(SETTLED);
    while rests.recv_many(&mut gathered, SETTLED).await > 0 {
        if let Err(error) = store.settle_announcements(&gathered).await {
            tracing::warn!(
                error = chain(&error),
                announcements = gathered.len(),
                "the state of postponed events could not be stored: they are published again when their rows are due"
            );
        }
        gathered.clear();
    }
}
