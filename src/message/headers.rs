//! The allow-list of AMQP headers that may be stored and shown unsealed. Any other header may hold
//! a secret of its producer.

use serde_json::{Map, Value};

use crate::trace::{TRACEPARENT, TRACESTATE, Trace};

/// The header that counts how often a message was dead-lettered, by queue and reason
/// (<https://www.rabbitmq.com/docs/dlx#effects>).
const DEATHS: &str = "x-death";
/// The maximum number of [`DEATHS`] entries that are kept, and the longest text in one, in bytes.
const DEATHS_LIMIT: usize = 8;
const TEXT_LIMIT: usize = 255;
/// Delivery counts, which the broker adds when it redelivers a message. A text value under such a
/// name is not the broker's.
pub const DELIVERY_COUNTS: &[&str] = &["x-delivery-count", "x-acquired-count"];

/// Returns the headers of the allow-list: a trace context that parses, the broker's counts, and
/// the queue, reason and count of each `x-death` entry. A producer may set any of these names, so
/// values that do not have the broker's form are dropped.
#[must_use]
pub fn allowed_headers(headers: &Value) -> Value {
    let text = |name| headers.get(name).and_then(Value::as_str);
    let mut allowed = Map::new();
    if let Some(trace) = Trace::parse(text(TRACEPARENT), text(TRACESTATE)) {
        allowed.insert(TRACEPARENT.to_owned(), Value::from(trace.to_string()));
        allowed.extend(
            trace
                .state()
                .map(|state| (TRACESTATE.to_owned(), Value::from(state))),
        );
    }
    for name in DELIVERY_COUNTS {
        allowed.extend(
            headers
                .get(name)
                .filter(|count| count.is_i64())
                .map(|count| ((*name).to_owned(), count.clone())),
        );
    }
    let deaths: Vec<Value> = headers
        .get(DEATHS)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(death)
        .collect();
    if !deaths.is_empty() {
        allowed.insert(
            DEATHS.to_owned(),
            deaths.into_iter().take(DEATHS_LIMIT).collect(),
        );
    }
    Value::Object(allowed)
}

/// Returns an entry of [`DEATHS`] without its routing keys and exchanges, which the producer
/// chooses.
fn death(entry: &Value) -> Option<Value> {
    let count = entry.get("count").filter(|count| count.is_i64())?;
    let mut kept = Map::from_iter([("count".to_owned(), count.clone())]);
    for name in ["queue", "reason"] {
        let text = entry
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| text.len() <= TEXT_LIMIT);
        kept.extend(text.map(|text| (name.to_owned(), Value::from(text))));
    }
    Some(Value::Object(kept))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_and_the_broker_s_counts_are_kept_and_nothing_else_is() {
        let received = json!({"traceparent": TRACE, "tracestate": "v=1", "authorization": "canary", "x-delivery-count": 3, "x-secret": 7,
            "x-death": [{"queue": "dispatch.jobs", "reason": "rejected", "count": 2, "exchange": "", "routing-keys": ["canary"]}]});
        let kept = json!({"traceparent": TRACE, "tracestate": "v=1", "x-delivery-count": 3,
            "x-death": [{"queue": "dispatch.jobs", "reason": "rejected", "count": 2}]});
        assert_eq!(allowed_headers(&received), kept);
    }

    #[test]
    fn a_name_of_the_allow_list_hides_no_other_value() {
        let long = "canary".repeat(60);
        for received in [
            json!({"traceparent": "canary", "tracestate": "canary"}),
            json!({"tracestate": "canary"}),
            json!({"x-delivery-count": "canary", "x-acquired-count": ["canary"]}),
            json!({"x-death": "canary"}),
            json!({"x-death": [{"reason": "canary"}, "canary", {"count": 1, "reason": long, "queue": {"canary": 1}}]}),
            json!("canary"),
        ] {
            let kept = allowed_headers(&received).to_string();
            assert!(!kept.contains("canary"), "{received}: {kept}");
        }
        let many = json!({"x-death": vec![json!({"count": 1}); 20]});
        assert_eq!(
            allowed_headers(&many)["x-death"].as_array().unwrap().len(),
            DEATHS_LIMIT
        );
    }
}
