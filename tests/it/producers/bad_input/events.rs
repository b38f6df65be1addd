//! Rows about events, each in a job that succeeds.

use serde_json::{Value, json};

use super::table::{End, Row, with};
use crate::support::{acme, intake};

pub(super) fn rows(seen: &Value, fresh: Vec<Value>) -> Vec<Row> {
    let mut fresh = fresh.into_iter();
    let mut event = || fresh.next().expect("EVENTS is large enough");
    let mut rows = refused_or_not(seen, &mut event);
    rows.extend(of_other_forms(&mut event));
    rows.extend(spoiled(&mut event));
    rows
}

fn row(
    name: &'static str,
    events: Vec<Value>,
    accepted: usize,
    ignored: &'static [&'static str],
) -> Row {
    let message = intake(with(name, "events", Value::Array(events)).to_string());
    Row {
        name,
        message,
        end: End::Handled { accepted, ignored },
        raw: None,
    }
}

fn genuine(payload: Value) -> Value {
    json!({"payload": payload, "shared_secret": acme::HOOK_SECRET})
}

fn with_field(mut payload: Value, pointer: &str, value: Value) -> Value {
    *payload
        .pointer_mut(pointer)
        .expect("the event has this field") = value;
    payload
}

fn changed(payload: Value, pointer: &str, value: Value) -> Value {
    genuine(with_field(payload, pointer, value))
}

/// Removes the work item from the URL and from `workItemId`.
fn by_revision_alone(payload: Value) -> Value {
    let payload = with_field(payload, "/resource/url", Value::Null);
    with_field(payload, "/resource/workItemId", Value::Null)
}

fn refused_or_not(seen: &Value, mut event: impl FnMut() -> Value) -> Vec<Row> {
    let mut rows = of_places_and_accounts(&mut event);
    rows.extend(of_odd_content(seen, &mut event));
    rows
}

/// Returns events with the secret, account or work item of another, or without one.
fn of_places_and_accounts(event: &mut impl FnMut() -> Value) -> Vec<Row> {
    let of_work_item = |payload, id| changed(payload, "/resource/workItemId", id);
    let numbered = |payload| changed(payload, "/resource/id", json!(acme::WORK_ITEM));
    let absent = |mut payload: Value, field: &str| {
        payload
            .as_object_mut()
            .expect("an event is an object")
            .remove(field)
            .expect("the event has this field");
        genuine(payload)
    };
    let of_account = json!({"account": {"id": acme::account_id().to_uppercase()}});
    let elsewhere = json!({"collection": {"id": "another"}, "account": {"id": "another"}});
    vec![
        row(
            "an event of another account",
            vec![changed(event(), "/resourceContainers", elsewhere)],
            0,
            &["wrong_account"],
        ),
        row(
            "a bad secret",
            vec![json!({"payload": event(), "shared_secret": "guessed"})],
            0,
            &["bad_secret"],
        ),
        row(
            "no secret",
            vec![json!({"payload": event()})],
            0,
            &["bad_secret"],
        ),
        row(
            "an event whose revision alone names the work item",
            vec![genuine(by_revision_alone(event()))],
            1,
            &[],
        ),
        row(
            "a test notification, whose work item is 0",
            vec![of_work_item(event(), json!(0))],
            1,
            &[],
        ),
        row(
            "an event that has another work item's number",
            vec![numbered(event())],
            1,
            &[],
        ),
        row(
            "an event of no collection and no account",
            vec![changed(event(), "/resourceContainers", json!({}))],
            1,
            &[],
        ),
        row(
            "an event of nowhere",
            vec![absent(event(), "resourceContainers")],
            1,
            &[],
        ),
        row(
            "an event of an account alone",
            vec![changed(event(), "/resourceContainers", of_account)],
            1,
            &[],
        ),
    ]
}

/// Names a work item that cannot exist, at a revision that cannot exist.
fn of_nothing(payload: Value) -> Value {
    let payload = with_field(
        by_revision_alone(payload),
        "/resource/workItemId",
        json!(1_u64 << 33),
    );
    changed(payload, "/resource/revision/id", json!(-1))
}

fn of_odd_content(seen: &Value, event: &mut impl FnMut() -> Value) -> Vec<Row> {
    let nowhere = |payload| {
        changed(
            by_revision_alone(payload),
            "/resource/revision",
            Value::Null,
        )
    };
    let twice = |payload: Value| vec![genuine(payload.clone()), genuine(payload)];
    let strange = json!({"System.AssignedTo": {"newValue": "\0"}, "System.ChangedDate": {"newValue": "2026-02-30T99:00:00Z"}});
    vec![
        row(
            "an event of a work item past all numbers",
            vec![of_nothing(event())],
            0,
            &["not_a_work_item"],
        ),
        row(
            "an event within a text",
            vec![genuine(json!(seen.to_string()))],
            0,
            &["malformed"],
        ),
        row(
            "an event that names no work item",
            vec![nowhere(event())],
            0,
            &["not_a_work_item"],
        ),
        row(
            "an event of another kind",
            vec![changed(event(), "/eventType", json!("build.complete"))],
            0,
            &["unsupported_event_type"],
        ),
        row("an event twice in a job", twice(event()), 1, &["duplicate"]),
        row(
            "an event seen before",
            vec![genuine(seen.clone())],
            0,
            &["duplicate"],
        ),
        row(
            "NUL and an impossible date in an event",
            vec![changed(event(), "/resource/fields", strange)],
            1,
            &[],
        ),
        row(
            "NUL in an event's id",
            vec![changed(event(), "/id", json!("a\0b"))],
            0,
            &["malformed"],
        ),
        row(
            "malformed events next to good ones",
            vec![
                genuine(event()),
                genuine(json!(7)),
                genuine(event()),
                genuine(json!({"id": []})),
                genuine(Value::Null),
            ],
            2,
            &["malformed", "malformed", "malformed"],
        ),
    ]
}

/// Returns events as relays write them, and as subscriptions with fewer resource details send
/// them.
fn of_other_forms(mut event: impl FnMut() -> Value) -> Vec<Row> {
    let as_text = |payload: Value| {
        let id = payload["resource"]["workItemId"].to_string();
        changed(payload, "/resource/workItemId", json!(id))
    };
    let revision_as_text = |payload: Value| {
        let id = payload["resource"]["workItemId"].to_string();
        changed(
            by_revision_alone(payload),
            "/resource/revision/id",
            json!(id),
        )
    };
    let minimal = |payload: Value| {
        let resource = json!({"id": payload["resource"]["id"], "url": payload["resource"]["url"]});
        changed(payload, "/resource", resource)
    };
    vec![
        row(
            "an event whose work item is a text",
            vec![as_text(event())],
            1,
            &[],
        ),
        row(
            "an event whose revision names the work item as a text",
            vec![revision_as_text(event())],
            1,
            &[],
        ),
        row(
            "an event with minimal details",
            vec![minimal(event())],
            1,
            &[],
        ),
        row(
            "an event without details",
            vec![changed(event(), "/resource", Value::Null)],
            0,
            &["not_a_work_item"],
        ),
    ]
}

/// Returns jobs that are JSON but contain values that cannot be represented; neither the event nor
/// its neighbour is lost.
fn spoiled(mut event: impl FnMut() -> Value) -> Vec<Row> {
    let mut row = |name: &'static str, fields: &str| {
        let events = vec![
            changed(event(), "/resource/fields", json!("PLACE")),
            genuine(event()),
        ];
        let body = with(name, "events", Value::Array(events))
            .to_string()
            .replace("\"PLACE\"", fields);
        Row {
            name,
            message: intake(body),
            end: End::Handled {
                accepted: 2,
                ignored: &[],
            },
            raw: None,
        }
    };
    vec![
        row(
            "half a character in an event",
            r#"{"System.Title":{"newValue":"Fixed \ud83d"}}"#,
        ),
        row(
            "a number past all numbers in an event",
            r#"{"System.Rev":{"oldValue":1e999}}"#,
        ),
    ]
}
