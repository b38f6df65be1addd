//! Rows with fields of a wrong type, out of range, or given twice.

use serde_json::{Value, json};

use super::table::{End, Row, letter, message, with, wrong};
use crate::support::acme;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = wrong_types();
    rows.extend(schemas());
    rows.extend(interactions());
    rows.extend(not_quite_json());
    rows.extend(given_twice());
    rows
}

fn wrong_types() -> Vec<Row> {
    let search = |name, value: Value| wrong(name, "search", value);
    let event = |name, value: Value| wrong(name, "events", json!([value]));
    vec![
        wrong("a source that is a number", "source", json!(7)),
        wrong("a key that is a list", "dedupe_key", json!(["a"])),
        wrong("an account that is a number", "account", json!(7)),
        wrong(
            "an identity that is an object",
            "identity",
            json!({"name": "bot"}),
        ),
        search("a search that is a text", json!("bugs")),
        search("a search for nothing", json!({})),
        search(
            "a search whose limit is a text",
            json!({"text": "x", "limit": "10"}),
        ),
        search(
            "a search with a field that nobody knows",
            json!({"text": "x", "order": "id"}),
        ),
        event(
            "an event without a payload",
            json!({"shared_secret": acme::HOOK_SECRET}),
        ),
        event(
            "an event with a field that nobody knows",
            json!({"payload": {}, "secret": acme::HOOK_SECRET}),
        ),
        event("an event that is a number", json!(7)),
        wrong("people who are a text", "notify", json!("team")),
        wrong("people who are numbers", "notify", json!([7])),
        wrong(
            "a time that is a number",
            "not_before",
            json!(1_767_225_600),
        ),
        wrong("a time that is a word", "not_before", json!("tomorrow")),
        wrong("a deadline without a time", "deadline", json!("2026-01-01")),
    ]
}

/// Returns invalid schema versions: a version is an integer from 1 that fits into 64 bits.
fn schemas() -> Vec<Row> {
    let schema = |name, value: Value| wrong(name, "schema", value);
    vec![
        schema("a schema that is a text", json!("1")),
        schema("schema 0", json!(0)),
        schema("schema -1", json!(-1)),
        schema("a schema and a half", json!(1.5)),
        schema("schema 1e300", json!(1e300)),
        schema("schema 2^63", json!(1_u64 << 63)),
    ]
}

/// Returns invalid interactions; their ids and token become parts of a URL.
fn interactions() -> Vec<Row> {
    let interaction = |name, value: Value| wrong(name, "interaction", value);
    let of_token =
        |name, token: &str| interaction(name, json!({"application_id": "1", "token": token}));
    let of_message = |name, id: &str| {
        interaction(
            name,
            json!({"application_id": "1", "token": "canary-interaction", "message_id": id}),
        )
    };
    vec![
        interaction("an interaction that is a text", json!("token")),
        interaction(
            "an interaction without a token",
            json!({"application_id": "1"}),
        ),
        interaction(
            "an interaction of a number",
            json!({"application_id": 1, "token": "canary-interaction"}),
        ),
        interaction(
            "an interaction one address up",
            json!({"application_id": "..", "token": "canary-interaction"}),
        ),
        of_token("an empty token", ""),
        of_token("a token of 1025 characters", &"x".repeat(1025)),
        of_token("a token that is two segments", "canary/interaction"),
        of_token("a token one address up", ".."),
        of_token("a token with NUL", "canary\0interaction"),
        of_message("an empty message id", ""),
        of_message("a message id of 21 digits", "123456789012345678901"),
        of_message("a message id that is a path", "@original/1"),
    ]
}

fn not_quite_json() -> Vec<Row> {
    let text = |name: &str| message(name).to_string();
    vec![
        letter(
            "a byte order mark",
            format!("\u{feff}{}", text("a byte order mark")),
            "",
        )
        .to(End::Handled {
            accepted: 0,
            ignored: &[],
        }),
        letter(
            "two byte order marks",
            format!("\u{feff}\u{feff}{}", text("two byte order marks")),
            "not_json",
        ),
        letter(
            "one more value",
            format!("{}{{}}", text("one more value")),
            "not_json",
        ),
    ]
}

/// Returns messages with duplicate fields, of which some parsers take the first and others the
/// last.
fn given_twice() -> Vec<Row> {
    let once = |name| {
        let click = json!({"application_id": "1", "token": "canary-interaction"});
        let mut message = with(name, "interaction", click);
        message["search"] = json!({"text": "nothing is found"});
        message["events"] = json!([{"payload": {}}]);
        message
    };
    let row = |name: &'static str, schema: i64, before: &str, another: &str| {
        let mut message = once(name);
        message["schema"] = json!(schema);
        let text = message.to_string();
        assert!(text.contains(before), "{text}");
        letter(
            name,
            text.replacen(before, &format!("{another},{before}"), 1),
            "invalid_request",
        )
    };
    vec![
        row(
            "an organization twice",
            1,
            "\"schema\"",
            "\"organization\":\"other\"",
        ),
        row("a schema twice", 1, "\"schema\"", "\"schema\":2"),
        row(
            "a schema twice, the newer one last",
            2,
            "\"schema\"",
            "\"schema\":1",
        ),
        row("a source twice", 1, "\"source\"", "\"source\":\"another\""),
        row(
            "a key twice",
            1,
            "\"dedupe_key\"",
            "\"dedupe_key\":\"another\"",
        ),
        row(
            "a key of a newer schema twice",
            2,
            "\"dedupe_key\"",
            "\"dedupe_key\":\"another\"",
        ),
        row("a payload twice", 1, "\"payload\"", "\"payload\":null"),
        row("a token twice", 1, "\"token\"", "\"token\":\"another\""),
        row(
            "a search's text twice",
            1,
            "\"text\"",
            "\"text\":\"another\"",
        ),
    ]
}
