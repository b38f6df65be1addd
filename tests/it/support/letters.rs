//! Dead letters as a defect of the worker would store them.

use dispatch_worker::broker::KEY_JOB;
use dispatch_worker::message::Refusal;
use dispatch_worker::store::NewDeadLetter;
use serde_json::json;

/// Returns the dead letter of an intake message that has nothing but a body, from a producer that
/// is not registered.
pub(crate) fn dead_letter(body: &str) -> NewDeadLetter<'_> {
    NewDeadLetter {
        producer: None,
        is_its_senders: false,
        refusal: &Refusal::NoSuchJob,
        body: body.as_bytes(),
        discarded: None,
        routing_key: KEY_JOB,
        headers: json!({}),
        source: None,
        dedupe_key: None,
        message_id: None,
        content_type: Some("application/json".to_owned()),
        content_encoding: None,
        app_id: None,
        reply_to: None,
        correlation_id: None,
    }
}
