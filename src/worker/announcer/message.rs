//! An announcement as messages: the event for whoever listens, the reply for its producer.

use crate::broker::{EVENTS, Outgoing};
use crate::message::DIRECT_REPLY;
use crate::store::Announcement;
use crate::trace::Trace;

/// The event for whoever listens on the exchange: nobody need.
pub(super) fn event(announcement: &Announcement) -> Option<Outgoing> {
    let routing_key = announcement.routing_key.clone()?;
    Some(Outgoing { exchange: EVENTS, routing_key, ..message(announcement) })
}

/// The reply to the producer's queue. One through RabbitMQ's direct reply-to goes to no queue: a mandatory one would be returned
/// although it arrives (<https://www.rabbitmq.com/docs/3.13/direct-reply-to>).
pub(super) fn reply(announcement: &Announcement) -> Option<Outgoing> {
    let queue = announcement.reply_to.clone().filter(|queue| is_replied_to(queue))?;
    let mandatory = !queue.starts_with(DIRECT_REPLY);
    Some(Outgoing { exchange: "", routing_key: queue, mandatory, ..message(announcement) })
}

/// Whether replies go to a queue of this name: not to the worker's own.
pub(super) fn is_replied_to(queue: &str) -> bool {
    !queue.starts_with("dispatch.")
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
