//! Makes the messages of an announcement: the event for subscribers, and the reply for the
//! producer.

use crate::broker::{EVENTS, Outgoing};
use crate::message::DIRECT_REPLY;
use crate::store::Announcement;
use crate::trace::Trace;

/// Returns the event, published to the exchange. It needs no subscriber, so it is not mandatory.
pub(super) fn event(announcement: &Announcement) -> Option<Outgoing> {
    let routing_key = announcement.routing_key.clone()?;
    Some(Outgoing {
        exchange: EVENTS,
        routing_key,
        ..message(announcement)
    })
}

/// Returns the reply to the producer's queue. A reply through RabbitMQ's direct reply-to goes to
/// no queue: as a mandatory message it would be returned although it arrives
/// (<https://www.rabbitmq.com/docs/3.13/direct-reply-to>).
pub(super) fn reply(announcement: &Announcement) -> Option<Outgoing> {
    let queue = announcement
        .reply_to
        .clone()
        .filter(|queue| is_replied_to(queue))?;
    let mandatory = !queue.starts_with(DIRECT_REPLY);
    Some(Outgoing {
        exchange: "",
        routing_key: queue,
        mandatory,
        ..message(announcement)
    })
}

/// Returns whether replies may go to a queue of this name. The worker's own queues get none.
pub(super) fn is_replied_to(queue: &str) -> bool {
    !queue.starts_with("dispatch.")
}

fn message(announcement: &Announcement) -> Outgoing {
    let trace = Trace::parse(
        announcement.traceparent.as_deref(),
        announcement.tracestate.as_deref(),
    );
    Outgoing {
        body: announcement.body.clone(),
        message_id: Some(format!("announcement-{}", announcement.id)),
        correlation_id: announcement.correlation_id.clone(),
        trace: trace.map(|trace| trace.child()),
        ..Outgoing::default()
    }
}
