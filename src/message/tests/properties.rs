//! Properties that hold for every message.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn digest(body: &str) -> [u8; 32] {
    match decode(body) {
        Ok(Intake::Request { digest, .. } | Intake::Newer(Newer { digest, .. })) => digest,
        other => panic!("{other:?}"),
    }
}

/// Generates a small JSON value.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |it| it.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Returns the same JSON with its keys in the opposite order and white space everywhere.
fn rewritten(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .rev()
                .map(|(key, value)| format!(" {} :\n{} ", json!(key), rewritten(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!(
            "[\t{} ]",
            items
                .iter()
                .map(rewritten)
                .collect::<Vec<_>>()
                .join(" ,\r\n")
        ),
        plain => plain.to_string(),
    }
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(body in proptest::collection::vec(any::<u8>(), 0..200), key in ".*", headers_too_large: bool) {
        let beside = Envelope { app_id: Some(key.clone()), message_id: Some(key), headers_too_large, ..envelope() };
        drop(decode_intake(&body, &beside, &ring(), JobId::fresh()));
        drop(decode_control::<Configure>(&body, &beside));
    }

    #[test]
    fn no_field_makes_decoding_panic_and_what_is_taken_reads_back(field in "schema|source|dedupe_key|organization|account|\
        identity|search|events|notify|interaction|not_before|deadline", value in any_json()) {
        if let Ok(Intake::Request { request, .. }) = decode(with(&field, value)) {
            let stored = serde_json::to_string(&request).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Request>(&stored).unwrap(), &*request);
        }
    }

    #[test]
    fn a_message_with_a_byte_changed_never_makes_decoding_panic(at: prop::sample::Index, byte: u8) {
        let event = json!([{ "payload": { "id": "e", "n": [1.5, "\u{1f600}"] }, "shared_secret": "s" }]);
        let mut body = with("events", event).into_bytes();
        let at = at.index(body.len());
        body[at] = byte;
        drop(decode(&body));
    }

    #[test]
    fn the_digest_is_the_same_for_equal_payloads_and_differs_for_others(payload in any_json(), other in any_json()) {
        let body = |payload: &Value| json!({ "schema": 1, "source": "s", "dedupe_key": "k", "organization": "o",
            "events": [{ "payload": payload }] });
        let plain = digest(&body(&payload).to_string());
        prop_assert_eq!(plain, digest(&rewritten(&body(&payload))));
        if payload != other {
            prop_assert_ne!(plain, digest(&body(&other).to_string()));
        }
    }
}
