//! Rows at and past each limit, and fields of other types than theirs.

use dispatch_worker::broker::{DEAD, Outgoing};
use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use super::raw::Raw;
use super::table::{End, Row, letter, message, with, without_key};
use crate::support::{acme, intake};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = wrong_types();
    rows.extend(past_a_length());
    rows.extend(not_quite_json());
    rows.extend(exactly_at_a_limit());
    rows.extend(properties());
    rows
}

fn wrong(name: &'static str, field: &str, value: Value) -> Row {
    letter(name, with(name, field, value).to_string(), "invalid_request")
}

fn wrong_types() -> Vec<Row> {
    let search = |name, value: Value| wrong(name, "search", value);
    let event = |name, value: Value| wrong(name, "events", json!([value]));
    let interaction = |name, value: Value| wrong(name, "interaction", value);
    vec![
        wrong("a schema that is a text", "schema", json!("1")),
        wrong("schema 0", "schema", json!(0)),
        wrong("a schema and a half", "schema", json!(1.5)),
        wrong("a source that is a number", "source", json!(7)),
        wrong("a key that is a list", "dedupe_key", json!(["a"])),
        wrong("an account that is a number", "account", json!(7)),
        wrong("an identity that is an object", "identity", json!({"name": "bot"})),
        search("a search that is a text", json!("bugs")),
        search("a search for nothing", json!({})),
        search("a search without an end", json!({"text": "x", "limit": 0})),
        search("a search for more than 1000", json!({"text": "x", "limit": 1001})),
        search("a search whose limit is a text", json!({"text": "x", "limit": "10"})),
        search("a search with a field that nobody knows", json!({"text": "x", "order": "id"})),
        event("an event without a payload", json!({"shared_secret": acme::HOOK_SECRET})),
        event("an event with a field that nobody knows", json!({"payload": {}, "secret": acme::HOOK_SECRET})),
        event("an event that is a number", json!(7)),
        wrong("people who are a text", "notify", json!("team")),
        wrong("people who are numbers", "notify", json!([7])),
        interaction("an interaction that is a text", json!("token")),
        interaction("an interaction without a token", json!({"application_id": "1"})),
        interaction("an interaction of a number", json!({"application_id": 1, "token": "canary-interaction"})),
        wrong("a time that is a number", "not_before", json!(1_767_225_600)),
        wrong("a time that is a word", "not_before", json!("tomorrow")),
        wrong("a deadline without a time", "deadline", json!("2026-01-01")),
    ]
}

fn past_a_length() -> Vec<Row> {
    let long = |length: usize| json!("x".repeat(length));
    vec![
        wrong("a source of 65 characters", "source", long(65)),
        wrong("an empty source", "source", json!("")),
        wrong("a key of 256 characters", "dedupe_key", long(256)),
        wrong("an empty key", "dedupe_key", json!("")),
        wrong("an organization of 65 characters", "organization", long(65)),
        wrong("an empty organization", "organization", json!("")),
        wrong("an account of 256 characters", "account", long(256)),
        wrong("an empty account", "account", json!("")),
        wrong("an identity of 256 characters", "identity", long(256)),
        wrong("a search of 1001 characters", "search", json!({"text": "x".repeat(1001)})),
        wrong("a search for no text", "search", json!({"text": ""})),
        wrong("51 destinations", "notify", json!(vec!["nobody"; 51])),
        wrong("a destination of 256 characters", "notify", json!(["x".repeat(256)])),
        wrong("a destination without a name", "notify", json!([""])),
    ]
}

fn not_quite_json() -> Vec<Row> {
    let text = |name: &str| message(name).to_string();
    let twice = text("a field twice").replacen("\"schema\"", "\"organization\":\"other\",\"schema\"", 1);
    vec![
        letter("a byte order mark", format!("\u{feff}{}", text("a byte order mark")), "not_json"),
        letter("one more value", format!("{}{{}}", text("one more value")), "not_json"),
        letter("a field twice", twice, "invalid_request"),
    ]
}

/// What is at a limit is taken.
fn exactly_at_a_limit() -> Vec<Row> {
    let row = |name: &'static str, body: String, end: End| Row { name, message: intake(body), end, raw: None };
    let taken = |ignored| End::Handled { accepted: 0, ignored };
    let mut full = message("1 MiB").to_string();
    full.push_str(&" ".repeat((1 << 20) - full.len()));
    let many = with("200 events", "events", json!(vec![json!({"payload": {}}); 200])).to_string();
    // The message, its events and one of them are three more.
    let nested = format!("{}{}", "[".repeat(61), "]".repeat(61));
    let deep = with("64 deep", "events", json!([{"payload": "DEEP"}])).to_string().replace("\"DEEP\"", &nested);
    let people = with("50 destinations", "notify", json!(vec!["nobody"; 50])).to_string();
    let plain = |name: &str| message(name).to_string();
    let sent = |name: &'static str, content_type: &str, content_encoding: Option<&str>| {
        let (content_type, content_encoding) = (Some(content_type.to_owned()), content_encoding.map(str::to_owned));
        Row {
            message: Outgoing { content_type, content_encoding, ..intake(plain(name)) },
            ..row(name, String::new(), taken(&[]))
        }
    };
    vec![
        row("1 MiB", full, taken(&[])),
        row("200 events", many, taken(&["malformed"; 200])),
        row("64 deep", deep, taken(&["malformed"])),
        row("50 destinations", people, End::Job(JobState::Parked, "unknown_destination")),
        sent("JSON in a character set", "Application/JSON; charset=utf-8", None),
        sent("no encoding, as said", "application/json", Some("identity")),
    ]
}

/// Properties that are not UTF-8, too large or nested too deep: the driver's parser alone would take the connection for broken,
/// again and again, or overflow its stack.
fn properties() -> Vec<Row> {
    let row =
        |name: &'static str, raw: Raw, end: End| Row { raw: Some(raw), ..letter(name, message(name).to_string(), "") }.to(end);
    let taken = || End::Handled { accepted: 0, ignored: &[] };
    let keyless = without_key("a message id that is not UTF-8").to_string();
    let given_up = Outgoing {
        exchange: DEAD,
        routing_key: "\0".to_owned(),
        ..intake(message("given up, with a key that is not UTF-8").to_string())
    };
    let by_key = Raw::json().routing_key(b"\xff");
    vec![
        row("no content type", Raw::default(), End::DeadLetter("unsupported_content_type")),
        row(
            "a content type that is not UTF-8",
            Raw::default().content_type(b"\xff"),
            End::DeadLetter("unsupported_content_type"),
        ),
        row(
            "a content encoding that is not UTF-8",
            Raw::json().content_encoding(b"\xe2\x82"),
            End::DeadLetter("unsupported_content_encoding"),
        ),
        Row {
            message: intake(keyless),
            ..row("a message id that is not UTF-8", Raw::json().message_id(b"a\xffb"), End::DeadLetter("invalid_request"))
        },
        row("properties that are not UTF-8 beside a body that says all", Raw::json().everywhere(b"\xff\xfe"), taken()),
        row("a header whose name is not UTF-8", Raw::json().header(b"\xff", 10), taken()),
        row("headers of 8 KiB and more", Raw::json().header(b"a", 8 << 10), End::DeadLetter("headers_too_large")),
        row("headers nested 200 deep", Raw::json().nested(200), taken()),
        row("headers nested 15,000 deep", Raw::json().nested(15_000), End::DeadLetter("headers_too_large")),
        Row {
            name: "given up, with a key that is not UTF-8",
            message: given_up,
            end: End::DeadLetter("unknown_routing_key"),
            raw: Some(by_key),
        },
    ]
}
