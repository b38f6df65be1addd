//! The table against the JSON Schema of a job: within the expressive power of a schema, both
//! accept the same messages.

use dispatch_worker::broker::KEY_JOB;
use dispatch_worker::message::{SCHEMA, schema};
use serde_json::{Value, json};

use super::table::{EVENTS, End, table};
use crate::support::acme;

/// Rows that a schema cannot judge: they are refused for something outside the body, or for
/// something that only the worker knows.
const BEYOND: &[&str] = &[
    "no source",
    "no dedupe key",
    "the same key with another payload",
    "NUL in the message id",
    "an application of 65 characters",
    "an application of 255 characters",
    "an application without a name",
    "an application with NUL",
    "a message id without a character",
    "sent to the queue itself",
    "given up, with a key that nobody knows",
    "1 MiB + 1",
    "65 deep",
    "text",
    "XML",
    "gzip",
    "a date past all dates",
    "an unknown organization",
    "a start in many years",
];

#[test]
fn the_json_schema_of_a_job_accepts_and_refuses_the_same_messages_as_the_worker() {
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema::job())
        .expect("a schema");
    let known = acme::job("known", &json!({"id": "e"}));
    let event = json!({
        "id": "e", "eventType": "workitem.updated", "resourceContainers": {},
        "resource": {"id": 5, "workItemId": 1, "fields": {}, "revision": {"id": 1}, "url": "https://dev.azure.com"}
    });
    let (mut taken, mut refused) = (0, 0);
    for row in table(&known, vec![event; EVENTS]) {
        let Ok(body) = serde_json::from_slice::<Value>(&row.message.body) else {
            continue;
        };
        // A raw message is about something outside the body.
        if row.raw.is_some()
            || row.message.routing_key != KEY_JOB
            || BEYOND.contains(&row.name)
            || body
                .get("schema")
                .and_then(Value::as_i64)
                .is_some_and(|schema| schema > SCHEMA)
            || row.name.contains("twice")
        {
            continue;
        }
        let is_right = !matches!(row.end, End::DeadLetter(_));
        assert_eq!(validator.is_valid(&body), is_right, "{}", row.name);
        *(if is_right { &mut taken } else { &mut refused }) += 1;
    }
    assert!(
        taken > 15 && refused > 60,
        "{taken} accepted, {refused} refused"
    );
}
