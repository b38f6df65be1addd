//! Rows at and beyond each limit.

use dispatch_worker::broker::Outgoing;
use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use super::table::{End, Row, message, with, wrong};
use crate::support::intake;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = past_a_length();
    rows.extend(of_a_search());
    rows.extend(exactly_at_a_limit());
    rows
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
        wrong("51 destinations", "notify", json!(vec!["nobody"; 51])),
        wrong(
            "a destination of 256 characters",
            "notify",
            json!(["x".repeat(256)]),
        ),
        wrong("a destination without a name", "notify", json!([""])),
    ]
}

/// Returns searches beyond the limits; a project becomes part of a URL.
fn of_a_search() -> Vec<Row> {
    let search = |name, field: &str, value: Value| {
        let mut search = json!({"text": "nothing is found"});
        search[field] = value;
        wrong(name, "search", search)
    };
    vec![
        search(
            "a search of 1001 characters",
            "text",
            json!("x".repeat(1001)),
        ),
        search("a search for no text", "text", json!("")),
        search("a search for NUL", "text", json!("a\0b")),
        search("a search without an end", "limit", json!(0)),
        search("a search for more than 1000", "limit", json!(1001)),
        search("a search in no project", "project", json!("")),
        search("a search in a project of blanks", "project", json!("  ")),
        search("a search one address up", "project", json!("..")),
        search("a search at the same address", "project", json!(".")),
        search(
            "a search one address up, by way of a tab",
            "project",
            json!(".\t."),
        ),
        search(
            "a search in a project with a line end",
            "project",
            json!("We\nb"),
        ),
        search("a search in a project with NUL", "project", json!("We\0b")),
        search(
            "a search in a project of 256 characters",
            "project",
            json!("x".repeat(256)),
        ),
        search(
            "a search in a project of half a MiB",
            "project",
            json!("x".repeat(1 << 19)),
        ),
        search(
            "a search for a type without a name",
            "work_item_types",
            json!([""]),
        ),
        search(
            "a search for a type with NUL",
            "work_item_types",
            json!(["Bu\0g"]),
        ),
        search(
            "a search for a type of 256 characters",
            "work_item_types",
            json!(["x".repeat(256)]),
        ),
        search(
            "a search for 51 types",
            "work_item_types",
            json!(vec!["Bug"; 51]),
        ),
        search("a search for a state without a name", "states", json!([""])),
        search("a search for a state with NUL", "states", json!(["Ne\0w"])),
        search(
            "a search for a state of 256 characters",
            "states",
            json!(["x".repeat(256)]),
        ),
        search("a search for 51 states", "states", json!(vec!["New"; 51])),
    ]
}

/// Returns messages exactly at a limit, which are accepted.
fn exactly_at_a_limit() -> Vec<Row> {
    let row = |name: &'static str, body: String, end: End| Row {
        name,
        message: intake(body),
        end,
        raw: None,
    };
    let taken = |ignored| End::Handled {
        accepted: 0,
        ignored,
    };
    let mut full = message("1 MiB").to_string();
    full.push_str(&" ".repeat((1 << 20) - full.len()));
    let many = with(
        "200 events",
        "events",
        json!(vec![json!({"payload": {}}); 200]),
    )
    .to_string();
    // The message, its list of events and the event add three levels.
    let nested = format!("{}{}", "[".repeat(61), "]".repeat(61));
    let deep = with("64 deep", "events", json!([{"payload": "DEEP"}]))
        .to_string()
        .replace("\"DEEP\"", &nested);
    let names = vec!["x".repeat(255); 50];
    let search =
        json!({"text": "x".repeat(1000), "work_item_types": names, "states": names, "limit": 1000});
    let search = with("a search at every limit", "search", search).to_string();
    let people = with("50 destinations", "notify", json!(vec!["nobody"; 50])).to_string();
    let plain = |name: &str| message(name).to_string();
    let sent = |name: &'static str, content_type: &str, content_encoding: Option<&str>| {
        let (content_type, content_encoding) = (
            Some(content_type.to_owned()),
            content_encoding.map(str::to_owned),
        );
        Row {
            message: Outgoing {
                content_type,
                content_encoding,
                ..intake(plain(name))
            },
            ..row(name, String::new(), taken(&[]))
        }
    };
    vec![
        row("1 MiB", full, taken(&[])),
        row("200 events", many, taken(&["malformed"; 200])),
        row("64 deep", deep, taken(&["malformed"])),
        row("a search at every limit", search, taken(&[])),
        row(
            "50 destinations",
            people,
            End::Job(JobState::Parked, "unknown_destination"),
        ),
        sent(
            "JSON in a character set",
            "Application/JSON; charset=utf-8",
            None,
        ),
        sent("no encoding, as said", "application/json", Some("identity")),
        sent(
            "a character set for an encoding",
            "application/json",
            Some("utf-8"),
        ),
        sent(
            "a character set for an encoding, in capitals",
            "application/json",
            Some("UTF-8"),
        ),
    ]
}
