//! Messages in hand.

use std::time::Instant;

use serde_json::Value;

use super::acks::Done;
use super::headers::{self, storable};
use super::sanitize::{Arrived, Charge};
use crate::message::{Discarded, Envelope};

/// A message in hand. It belongs to the connection that delivered it, and ends with
/// [`Delivery::ack`] or [`Delivery::abandon`].
#[derive(Debug)]
pub struct Delivery {
    /// The body as received; only the beginning of a body that was [discarded](Self::discarded).
    pub body: Vec<u8>,
    /// Size and digest of a body over the limit, which was discarded while it arrived.
    pub discarded: Option<Discarded>,
    /// The routing key as received, storable.
    pub routing_key: String,
    /// Content type, encoding and ids, as received.
    pub envelope: Envelope,
    /// The queue for replies, storable.
    pub reply_to: Option<String>,
    /// The id that is returned with replies, storable.
    pub correlation_id: Option<String>,
    /// The header table as JSON with storable texts; only the first fields of one over the limit.
    pub headers: Value,
    /// When it arrived, on this process' clock.
    pub received_at: Instant,
    /// The memory it takes, released when it is a row or dropped.
    charge: Option<Charge>,
    tag: u64,
    done: Done,
}

impl Delivery {
    pub(super) fn new(from: lapin::message::Delivery, arrived: Arrived, done: Done) -> Self {
        let Arrived {
            charge,
            discarded,
            headers_too_large,
        } = arrived;
        let text = |value: &Option<lapin::types::ShortString>| {
            value.as_ref().map(|text| text.as_str().to_owned())
        };
        let clean = |value: &Option<lapin::types::ShortString>| {
            value.as_ref().map(|text| storable(text.as_str()))
        };
        let properties = &from.properties;
        let header_table = properties.headers().clone().unwrap_or_default();
        let headers = headers::to_json(&header_table);
        let envelope = Envelope {
            content_type: text(properties.content_type()),
            content_encoding: text(properties.content_encoding()),
            message_id: text(properties.message_id()),
            app_id: text(properties.app_id()),
            user_id: text(properties.user_id()),
            headers_too_large,
        };
        let (discarded, mut body) = discarded.map_or((None, from.data), |(whole, beginning)| {
            (Some(whole), beginning)
        });
        // The driver's buffer grows by doubling.
        body.shrink_to_fit();
        Self {
            routing_key: storable(from.routing_key.as_str()),
            envelope,
            reply_to: clean(properties.reply_to()),
            correlation_id: clean(properties.correlation_id()),
            headers,
            body,
            discarded,
            received_at: Instant::now(),
            charge,
            tag: from.delivery_tag,
            done,
        }
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }

    /// Frees the body and its memory charge after it was stored.
    pub fn forget_body(&mut self) {
        self.body = Vec::new();
        self.charge = None;
    }

    /// Finishes the delivery. It is acked together with others that finish at the same time.
    pub fn ack(self) {
        if self.done.send(self.tag).is_err() {
            tracing::debug!("an ack was lost with its connection; the message is redelivered");
        }
    }

    /// Drops the delivery without an ack. It returns to its queue when its channel closes.
    pub fn abandon(self) {
        drop(self);
    }
}
