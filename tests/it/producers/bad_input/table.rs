//! The rows of the table.

use dispatch_worker::broker::Outgoing;
use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use super::raw::Raw;
use super::{controls, events, fields, limits, properties};
use crate::support::{acme, intake};

/// A message and its expected end.
pub(super) struct Row {
    /// What is wrong with the message; also its dedupe key if it has one.
    pub(super) name: &'static str,
    pub(super) message: Outgoing,
    pub(super) end: End,
    /// The properties of a raw message, instead of the message's own.
    pub(super) raw: Option<Raw>,
}

impl Row {
    /// Replaces the expected end.
    pub(super) fn to(self, end: End) -> Self {
        Self { end, ..self }
    }
}

/// The end of a message.
pub(super) enum End {
    /// A dead letter with this code.
    DeadLetter(&'static str),
    /// A job in this state, with this wait reason or error code.
    Job(JobState, &'static str),
    /// A succeeded job with so many accepted events; the others are ignored for these reasons.
    Handled {
        accepted: usize,
        ignored: &'static [&'static str],
    },
    /// No row; the message is only counted.
    Nothing,
}

/// The number of genuine events that the table needs.
pub(super) const EVENTS: usize = 27;

/// Returns all rows. `known` is the message of a succeeded job; `fresh` are [`EVENTS`] genuine
/// events that no job has handled.
pub(super) fn table(known: &Value, fresh: Vec<Value>) -> Vec<Row> {
    let mut rows = not_text_or_not_json();
    rows.extend(misshapen(known));
    rows.extend(past_a_limit());
    rows.extend(limits::rows());
    rows.extend(fields::rows());
    rows.extend(properties::rows());
    rows.extend(controls::rows());
    rows.extend(jobs_that_cannot_go_on());
    rows.extend(events::rows(&known["events"][0]["payload"], fresh));
    rows
}

pub(super) fn letter(name: &'static str, body: impl Into<Vec<u8>>, code: &'static str) -> Row {
    Row {
        name,
        message: intake(body),
        end: End::DeadLetter(code),
        raw: None,
    }
}

/// Returns a [`letter`] for a message with one invalid field.
pub(super) fn wrong(name: &'static str, field: &str, value: Value) -> Row {
    letter(
        name,
        with(name, field, value).to_string(),
        "invalid_request",
    )
}

/// Returns an intake message without events.
pub(super) fn message(name: &str) -> Value {
    let mut message = acme::job(name, &Value::Null);
    message["events"] = json!([]);
    message["notify"] = json!([]);
    message
}

/// Returns a [`message`] with one field replaced, or removed if the value is null.
pub(super) fn with(name: &str, field: &str, value: Value) -> Value {
    let mut message = message(name);
    let fields = message.as_object_mut().expect("a message is an object");
    if value.is_null() {
        fields.remove(field);
    } else {
        fields.insert(field.to_owned(), value);
    }
    message
}

/// Returns a [`message`] with the given bytes in place of `PLACE` in an event's payload.
fn with_bytes(name: &str, bytes: &[u8]) -> Vec<u8> {
    let text = with(
        name,
        "events",
        json!([{"payload": {"a": "PLACE"}, "shared_secret": acme::HOOK_SECRET}]),
    )
    .to_string();
    let (before, after) = text.split_once("PLACE").expect("the text contains PLACE");
    [before.as_bytes(), bytes, after.as_bytes()].concat()
}

fn not_text_or_not_json() -> Vec<Row> {
    let mut rows = not_json();
    rows.extend(not_text());
    rows
}

fn not_json() -> Vec<Row> {
    let text = message("cut off").to_string();
    let half = |name: &'static str, half: &[u8]| {
        letter(name, with_bytes(name, half), "").to(End::Handled {
            accepted: 0,
            ignored: &["malformed"],
        })
    };
    let with_half = |field: &str, name: &str| {
        let value = if field == "search" {
            json!({"text": "PLACE"})
        } else {
            json!("PLACE")
        };
        with(name, field, value)
            .to_string()
            .replace("PLACE", r"\ud83d")
    };
    vec![
        letter("nothing", "", "not_json"),
        letter("not JSON", "schema: 1", "not_json"),
        letter("cut off", &text[..text.len() - 1], "not_json"),
        half("a high surrogate alone", br"\ud83d"),
        half("a low surrogate alone", br"\ude00"),
        letter(
            "half a character in a source",
            with_half("source", "half"),
            "invalid_request",
        ),
        letter(
            "half a character in a key",
            with_half("dedupe_key", "half"),
            "invalid_request",
        ),
        letter(
            "half a character in a search",
            with_half("search", "half a search"),
            "invalid_request",
        ),
        letter(
            "a number past all numbers",
            message("a number").to_string().replace("[]", "1e999"),
            "invalid_request",
        ),
        letter(
            "a number that is none",
            message("no number").to_string().replace("[]", "NaN"),
            "not_json",
        ),
        letter(
            "a number without an end",
            message("no end").to_string().replace("[]", "-Infinity"),
            "not_json",
        ),
    ]
}

/// Returns bodies that are not UTF-8, and other types of content.
fn not_text() -> Vec<Row> {
    let sent_as =
        |name: &'static str, content_type: Option<&str>, content_encoding: Option<&str>, code| {
            let (content_type, content_encoding) = (
                content_type.map(str::to_owned),
                content_encoding.map(str::to_owned),
            );
            let message = Outgoing {
                content_type,
                content_encoding,
                ..intake(message(name).to_string())
            };
            Row {
                name,
                message,
                end: End::DeadLetter(code),
                raw: None,
            }
        };
    vec![
        letter(
            "invalid UTF-8",
            with_bytes("invalid UTF-8", b"\xff\xfe"),
            "not_utf8",
        ),
        letter(
            "a surrogate in UTF-8",
            with_bytes("a surrogate in UTF-8", b"\xed\xa0\xbd"),
            "not_utf8",
        ),
        letter(
            "NUL as a byte",
            with_bytes("NUL as a byte", b"\0"),
            "not_json",
        ),
        sent_as("text", Some("text/plain"), None, "unsupported_content_type"),
        sent_as(
            "XML",
            Some("application/xml"),
            None,
            "unsupported_content_type",
        ),
        sent_as("gzip", None, Some("gzip"), "unsupported_content_encoding"),
    ]
}

fn misshapen(known: &Value) -> Vec<Row> {
    let mut rows = without_what_is_needed(known);
    rows.extend(with_wrong_values());
    rows
}

fn without_what_is_needed(known: &Value) -> Vec<Row> {
    let missing = |name: &'static str, field: &str| {
        letter(
            name,
            with(name, field, Value::Null).to_string(),
            "missing_field",
        )
    };
    let mut other_payload = known.clone();
    other_payload["account"] = json!("another");
    vec![
        letter("not an object", "[]", "missing_field"),
        missing("no schema", "schema"),
        missing("no organization", "organization"),
        missing("no source", "source"),
        letter(
            "no dedupe key",
            without_key("none").to_string(),
            "missing_field",
        ),
        letter(
            "the same key with another payload",
            other_payload.to_string(),
            "dedupe_conflict",
        ),
    ]
}

fn with_wrong_values() -> Vec<Row> {
    let refused = |name: &'static str, field: &str, value, code| {
        letter(name, with(name, field, value).to_string(), code)
    };
    let nul_key = Outgoing {
        message_id: Some("a\0b".to_owned()),
        ..intake(without_key("NUL").to_string())
    };
    vec![
        wrong("an organization that is a number", "organization", json!(7)),
        wrong("events that are none", "events", json!("many")),
        wrong(
            "a secret of the wrong type",
            "events",
            json!([{"payload": {}, "shared_secret": [acme::HOOK_SECRET]}]),
        ),
        wrong("a field that nobody knows", "priority", json!("high")),
        wrong(
            "a date that no calendar has",
            "not_before",
            json!("2026-02-30T00:00:00Z"),
        ),
        wrong(
            "a date past all dates",
            "deadline",
            json!("9999-12-31T23:59:59-23:59"),
        ),
        refused(
            "the newest schema that there can be",
            "schema",
            json!(i64::MAX),
            "unsupported_schema",
        ),
        refused(
            "an unknown organization",
            "organization",
            json!("nobody"),
            "unknown_organization",
        ),
        refused(
            "a start in many years",
            "not_before",
            json!("2099-01-01T00:00:00Z"),
            "not_before_too_far",
        ),
        wrong("NUL in the organization", "organization", json!("ac\0me")),
        wrong("NUL in the key", "dedupe_key", json!("a\0b")),
        Row {
            name: "NUL in the message id",
            message: nul_key,
            end: End::DeadLetter("invalid_request"),
            raw: None,
        },
    ]
}

/// Returns a message without a dedupe key; its account makes it unique.
pub(super) fn without_key(account: &str) -> Value {
    without("dedupe_key", account)
}

/// Returns a message without the given field; its account makes it unique.
pub(super) fn without(field: &str, account: &str) -> Value {
    let mut message = with("-", field, Value::Null);
    message["account"] = json!(account);
    message
}

fn past_a_limit() -> Vec<Row> {
    let mut long = message("1 MiB + 1").to_string();
    long.push_str(&" ".repeat((1 << 20) + 1 - long.len()));
    let many = with(
        "201 events",
        "events",
        json!(vec![json!({"payload": {}}); 201]),
    )
    .to_string();
    // The message, its list of events and the event add three levels.
    let nested = format!("{}{}", "[".repeat(62), "]".repeat(62));
    let deep = with("65 deep", "events", json!([{"payload": "DEEP"}]))
        .to_string()
        .replace("\"DEEP\"", &nested);
    vec![
        letter("1 MiB + 1", long, "too_large"),
        letter("201 events", many, "too_many_events"),
        letter("65 deep", deep, "too_deep"),
    ]
}

fn jobs_that_cannot_go_on() -> Vec<Row> {
    let job = |name: &'static str, field: &str, value: Value, state, reason| Row {
        name,
        message: intake(with(name, field, value).to_string()),
        end: End::Job(state, reason),
        raw: None,
    };
    vec![
        job(
            "a newer schema",
            "schema",
            json!(2),
            JobState::Waiting,
            "version",
        ),
        job(
            "an unknown destination",
            "notify",
            json!(["nobody"]),
            JobState::Parked,
            "unknown_destination",
        ),
        job(
            "a deadline long ago",
            "deadline",
            json!("2001-01-01T00:00:00Z"),
            JobState::Parked,
            "deadline_exceeded",
        ),
        job(
            "an account of nobody",
            "account",
            json!("nobody"),
            JobState::Waiting,
            "configuration",
        ),
        job(
            "an identity of nobody",
            "identity",
            json!("nobody"),
            JobState::Waiting,
            "configuration",
        ),
    ]
}
