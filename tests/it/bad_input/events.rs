//! Rows of events, each in a job that succeeds.

use serde_json::{Value, json};

use super::table::{End, Row, with};
use crate::support::{acme, intake};

pub(super) fn rows(seen: &Value, fresh: Vec<Value>) -> Vec<Row> {
    let mut fresh = fresh.into_iter();
    let mut event = || fresh.next().expect("there are as many as it says");
    let row = |name: &'static str, events: Vec<Value>, accepted, ignored: &'static [&'static str]| {
        let message = intake(with(name, "events", Value::Array(events)).to_string());
        Row { name, message, end: End::Handled { accepted, ignored }, raw: None }
    };
    let genuine = |payload: Value| json!({"payload": payload, "shared_secret": acme::HOOK_SECRET});
    let changed = |mut payload: Value, pointer: &str, value: Value| {
        *payload.pointer_mut(pointer).expect("the event has this field") = value;
        genuine(payload)
    };
    let without_id = |payload| changed(payload, "/resource/workItemId", Value::Null);
    let of_work_item = |payload, id| changed(payload, "/resource/workItemId", id);
    let numbered = |payload| changed(payload, "/resource/id", json!(acme::WORK_ITEM));
    let of_nothing = |payload| {
        let payload = of_work_item(payload, json!(1_u64 << 33))["payload"].take();
        changed(payload, "/resource/revision/id", json!(-1))
    };
    let nowhere = |payload| changed(without_id(payload)["payload"].take(), "/resource/revision", Value::Null);
    let absent = |mut payload: Value, field: &str| {
        payload.as_object_mut().expect("an event is an object").remove(field).expect("the event has this field");
        genuine(payload)
    };
    let twice = |payload: Value| vec![genuine(payload.clone()), genuine(payload)];
    let of_account = json!({"account": {"id": acme::account_id().to_uppercase()}});
    let strange = json!({"System.AssignedTo": {"newValue": "\0"}, "System.ChangedDate": {"newValue": "2026-02-30T99:00:00Z"}});
    let elsewhere = json!({"collection": {"id": "another"}, "account": {"id": "another"}});
    vec![
        row("an event of another account", vec![changed(event(), "/resourceContainers", elsewhere)], 0, &["wrong_account"]),
        row("a bad secret", vec![json!({"payload": event(), "shared_secret": "guessed"})], 0, &["bad_secret"]),
        row("no secret", vec![json!({"payload": event()})], 0, &["bad_secret"]),
        row("an event whose revision alone names the work item", vec![without_id(event())], 1, &[]),
        row("a test notification, whose work item is 0", vec![of_work_item(event(), json!(0))], 1, &[]),
        row("an event that has another work item's number", vec![numbered(event())], 1, &[]),
        row("an event of no collection and no account", vec![changed(event(), "/resourceContainers", json!({}))], 1, &[]),
        row("an event of nowhere", vec![absent(event(), "resourceContainers")], 1, &[]),
        row("an event of an account alone", vec![changed(event(), "/resourceContainers", of_account)], 1, &[]),
        row("an event of a work item past all numbers", vec![of_nothing(event())], 0, &["not_a_work_item"]),
        row("an event within a text", vec![genuine(json!(seen.to_string()))], 0, &["malformed"]),
        row("an event that names no work item", vec![nowhere(event())], 0, &["not_a_work_item"]),
        row(
            "an event of another kind",
            vec![changed(event(), "/eventType", json!("build.complete"))],
            0,
            &["unsupported_event_type"],
        ),
        row("an event twice in a job", twice(event()), 1, &["duplicate"]),
        row("an event seen before", vec![genuine(seen.clone())], 0, &["duplicate"]),
        row("NUL and an impossible date in an event", vec![changed(event(), "/resource/fields", strange)], 1, &[]),
        row("NUL in an event's id", vec![changed(event(), "/id", json!("a\0b"))], 0, &["malformed"]),
        row(
            "malformed events next to good ones",
            vec![genuine(event()), genuine(json!(7)), genuine(event()), genuine(json!({"id": []})), genuine(Value::Null)],
            2,
            &["malformed", "malformed", "malformed"],
        ),
    ]
}
