//! Makes the messages of an announcement: the event for subscribers, and the reply for the
//! producer.

use serde_json::Value;

use crate::broker::{EVENTS, Outgoing};
use crate::message::DIRECT_REPLY;
use crate::store::Announcement;
use crate::trace::Trace;

/// The event of a job that waits for an account.
const ASKS_FOR_ACCOUNT: &str = "job.waiting.configuration";

/// Returns the event, published to the exchange. It needs no subscriber, so it is not mandatory.
pub(super) fn event(announcement: &Announcement) -> Option<Outgoing> {
    let routing_key = announcement.routing_key.clone()?;
    let message = message(announcement);
    let body = if routing_key == ASKS_FOR_ACCOUNT {
        without_link(message.body)
    } else {
        message.body
    };
    Some(Outgoing {
        exchange: EVENTS,
        routing_key,
        body,
        ..message
    })
}

/// Returns the body without the link on which an account is chosen: it permits whoever has it, and
/// events are for everybody who may read the exchange.
fn without_link(body: Vec<u8>) -> Vec<u8> {
    let Ok(mut event) = serde_json::from_slice::<Value>(&body) else {
        return body;
    };
    let configuration = event
        .get_mut("configuration")
        .and_then(Value::as_object_mut);
    match configuration.and_then(|configuration| configuration.remove("link")) {
        Some(_) => event.to_string().into_bytes(),
        None => body,
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_no_link_that_permits_its_reader_to_choose() {
        let body = json!({"configuration": {"help": "text", "link": "https://dispatch.example/configure/t"}});
        let shown: Value =
            serde_json::from_slice(&without_link(body.to_string().into_bytes())).unwrap();
        assert_eq!(shown, json!({"configuration": {"help": "text"}}));
        for other in ["{}", "{\"configuration\":null}", "no JSON"] {
            assert_eq!(without_link(other.into()), other.as_bytes());
        }
    }
}
