//! A message in hand.

use serde_json::Value;

use super::acks::Done;
use super::headers::{self, storable};
use super::sanitize::{Arrived, Charge};
use crate::message::{Discarded, Envelope};

/// A message in hand. It belongs to the connection it came over, and ends as [`Delivery::ack`] or [`Delivery::abandon`].
#[derive(Debug)]
pub struct Delivery {
    /// As received; of a body that was [discarded](Self::discarded), its beginning.
    pub body: Vec<u8>,
    /// What is known of a body over the limit, which was thrown away while it came.
    pub discarded: Option<Discarded>,
    /// As received, storable.
    pub routing_key: String,
    /// Content type, encoding, ids: as received.
    pub envelope: Envelope,
    /// Where the producer wants answers, storable.
    pub reply_to: Option<String>,
    /// Given back with answers, storable.
    pub correlation_id: Option<String>,
    /// The header table, as JSON, its texts storable; of one over the limit, its first fields.
    pub headers: Value,
    /// The memory it takes, given back when it is a row or gone.
    charge: Option<Charge>,
    tag: u64,
    done: Done,
}

impl Delivery {
    pub(super) fn new(from: lapin::message::Delivery, arrived: Arrived, done: Done) -> Self {
        let Arrived { charge, discarded, header_bytes } = arrived;
        let text = |value: &Option<lapin::types::ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
        let clean = |value: &Option<lapin::types::ShortString>| value.as_ref().map(|text| storable(text.as_str()));
        let properties = &from.properties;
        let header_table = properties.headers().clone().unwrap_or_default();
        let headers = headers::to_json(&header_table);
        let envelope = Envelope {
            content_type: text(properties.content_type()),
            content_encoding: text(properties.content_encoding()),
            message_id: text(properties.message_id()),
            app_id: text(properties.app_id()),
            user_id: text(properties.user_id()),
            header_bytes: header_bytes.unwrap_or_else(|| headers::producer_bytes(&header_table)),
        };
        let (discarded, mut body) = discarded.map_or((None, from.data), |(whole, beginning)| (Some(whole), beginning));
        // The driver's buffer has grown by doubling.
        body.shrink_to_fit();
        Self {
            routing_key: storable(from.routing_key.as_str()),
            envelope,
            reply_to: clean(properties.reply_to()),
            correlation_id: clean(properties.correlation_id()),
            headers,
            body,
            discarded,
            charge,
            tag: from.delivery_tag,
            done,
        }
    }

    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(Value::as_str)
    }

    /// Its body is stored: nobody needs it here any more, and others may come.
    pub fn forget_body(&mut self) {
        self.body = Vec::new();
        self.charge = None;
    }

    /// Done with it: it is acked with the others that are done with at the same time.
    pub fn ack(self) {
        if self.done.send(self.tag).is_err() {
            tracing::debug!("an ack came too late: the delivery's connection is gone");
        }
    }

    /// Not done with it: it goes back when its channel closes.
    pub fn abandon(self) {
        drop(self);
    }
}
