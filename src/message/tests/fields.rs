//! Fields that are missing, doubled, or of the wrong type or range.

use serde_json::{Value, json};

use super::*;

#[test]
fn a_required_field_that_is_missing_or_null_is_named() {
    for field in ["schema", "source", "dedupe_key", "organization"] {
        assert_eq!(
            decode(without(field)).unwrap_err().to_string(),
            format!("`{field}` is required")
        );
    }
    for field in ["source", "dedupe_key", "organization"] {
        assert_eq!(code(with(field, Value::Null)), "missing_field", "{field}");
    }
    for body in ["{}", "[]", "null", "7", r#""x""#, r#"[{"schema":1}]"#] {
        assert_eq!(code(body), "missing_field", "{body}");
    }
}

#[test]
fn the_properties_stand_in_for_a_source_and_a_key_that_the_body_lacks() {
    let mut beside = Envelope {
        app_id: Some("app".to_owned()),
        message_id: Some("m-1".to_owned()),
        ..envelope()
    };
    let bare = json!({ "schema": 1, "organization": "acme" }).to_string();
    let found = |body: &str, beside: &Envelope| match decode_intake(
        body.as_bytes(),
        beside,
        &ring(),
        JobId::fresh(),
    ) {
        Ok(Intake::Request { request, .. }) => (request.source, request.dedupe_key),
        other => panic!("{other:?}"),
    };
    assert_eq!(found(&bare, &beside), ("app".to_owned(), "m-1".to_owned()));
    assert_eq!(
        found(&message().to_string(), &beside),
        ("hooks".to_owned(), "k-1".to_owned())
    );
    beside.message_id = Some("m\0".to_owned());
    let refusal = decode_intake(bare.as_bytes(), &beside, &ring(), JobId::fresh()).unwrap_err();
    assert_eq!(refusal.code(), "invalid_request");
}

#[test]
fn a_field_of_the_wrong_type_or_out_of_its_range_is_named() {
    let (long, names) = ("x".repeat(256), vec!["d"; NOTIFY_LIMIT + 1]);
    let rows = [
        ("schema", json!("1")),
        ("schema", json!(0)),
        ("schema", json!(-1)),
        ("schema", json!(1.5)),
        ("schema", json!(1e300)),
        ("source", json!(7)),
        ("source", json!("")),
        ("source", json!("s".repeat(65))),
        ("dedupe_key", json!([])),
        ("dedupe_key", json!("")),
        ("dedupe_key", json!(long)),
        ("organization", json!(["acme"])),
        ("organization", json!("")),
        ("account", json!(7)),
        ("account", json!(long)),
        ("identity", json!({})),
        ("events", json!({})),
        ("events", json!(["x"])),
        ("events", json!([{}])),
        ("events", json!([{ "payload": {}, "shared_secret": 7 }])),
        ("events", json!([{ "payload": {}, "secret": "x" }])),
        ("notify", json!("ops")),
        ("notify", json!([""])),
        ("notify", json!(names)),
        ("not_before", json!(1_700_000_000)),
        ("unheard_of", json!(1)),
    ];
    for (field, value) in rows {
        assert_names(field, value);
    }
}

#[test]
fn a_search_or_an_interaction_out_of_its_range_is_named() {
    let search = |limit: i64| json!({ "text": "t", "limit": limit });
    let narrowed = |field: &str, value: Value| json!({ "text": "t", field: value });
    let searches = [
        json!("text"),
        json!({ "text": "" }),
        search(0),
        search(-1),
        search(i64::from(SEARCH_LIMIT) + 1),
        search(i64::MAX),
        narrowed("project", json!("")),
        narrowed("project", json!("..")),
        narrowed("project", json!(".\t.")),
        narrowed("project", json!("x".repeat(MESSAGE_LIMIT >> 1))),
        narrowed("work_item_types", json!("Bug")),
        narrowed("work_item_types", json!([""])),
        narrowed(
            "work_item_types",
            json!(vec!["Bug"; SEARCH_NAMES_LIMIT + 1]),
        ),
        narrowed("states", json!(vec!["New"; SEARCH_NAMES_LIMIT + 1])),
        narrowed("states", json!(["x".repeat(256)])),
    ];
    for value in searches {
        assert_names("search", value);
    }
    let interactions = [
        json!({ "application_id": "1" }),
        json!({ "application_id": "..", "token": "t" }),
        json!({ "application_id": "1", "token": "" }),
        json!({ "application_id": "1", "token": ".." }),
        json!({ "application_id": "1", "token": "a/b" }),
        json!({ "application_id": "1", "token": "a".repeat(TOKEN_LENGTH + 1) }),
        json!({ "application_id": "1", "token": "t", "message_id": "1/2" }),
    ];
    for value in interactions {
        assert_names("interaction", value);
    }
}

/// Asserts that a message with this value is invalid, and that the refusal names the field.
fn assert_names(field: &str, value: Value) {
    let refusal = decode(with(field, value.clone())).unwrap_err();
    assert_eq!(
        refusal.code(),
        "invalid_request",
        "{field} = {value}: {refusal}"
    );
    assert!(
        refusal.to_string().contains(field),
        "{field} = {value}: {refusal}"
    );
}

#[test]
fn a_key_given_twice_is_refused_inside_a_payload_it_is_the_producer_s_own_affair() {
    for field in ["source", "dedupe_key", "organization", "schema"] {
        let twice = message().to_string().replacen(
            '{',
            &format!(r#"{{"{field}":{},"#, message()[field]),
            1,
        );
        assert_eq!(code(&twice), "invalid_request", "{field}");
        let newer = twice.replacen(r#""schema":1"#, r#""schema":2"#, 1);
        assert_eq!(code(&newer), "invalid_request", "{field} of a newer schema");
    }
    let payload = r#"{"a":1,"a":2}"#;
    let body =
        with("events", json!("E")).replace("\"E\"", &format!(r#"[{{"payload":{payload}}}]"#));
    assert_eq!(request(&body).events[0].payload.get(), payload);
}

#[test]
fn nul_is_refused_where_it_would_be_stored_as_text_and_kept_in_a_payload() {
    for field in [
        "source",
        "dedupe_key",
        "organization",
        "account",
        "identity",
    ] {
        let refusal = decode(with(field, json!("a\0b"))).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Invalid { path, .. } if path == field),
            "{field}: {refusal}"
        );
    }
    assert_eq!(code(with("notify", json!(["a\0b"]))), "invalid_request");
    assert_eq!(
        code(with("search", json!({ "text": "a\0b" }))),
        "invalid_request"
    );
    for field in ["project", "work_item_types", "states"] {
        let value = if field == "project" {
            json!("a\0b")
        } else {
            json!(["a\0b"])
        };
        assert_eq!(
            code(with("search", json!({ "text": "t", field: value }))),
            "invalid_request",
            "{field}"
        );
    }
    assert_eq!(code("\0{}"), "not_json");
    let kept = request(&with("events", json!([{ "payload": { "a": "\0" } }])));
    assert_eq!(kept.events[0].payload.get(), r#"{"a":"\u0000"}"#);
}

#[test]
fn dates_that_no_calendar_and_no_clock_has_are_refused() {
    let rows = [
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-01T25:00:00Z",
        "2026-01-01T00:61:00Z",
        "2026-01-01T00:00:00+99:00",
        "2026-01-01",
        "10000-01-01T00:00:00Z",
        "infinity",
        "soon",
        "",
        // In UTC, these are after the last year that a timestamp can hold, and before the first.
        "9999-12-31T23:59:59-23:59",
        "0000-01-01T00:00:00+23:59",
    ];
    for field in ["not_before", "deadline"] {
        for date in rows {
            let refusal = decode(with(field, json!(date)))
                .err()
                .unwrap_or_else(|| panic!("{field} {date} was taken"));
            assert!(
                matches!(&refusal, Refusal::Invalid { path, .. } if path == field),
                "{field} {date}: {refusal}"
            );
        }
        for date in [
            "2028-02-29T00:00:00Z",
            "2016-12-31T23:59:60Z",
            "9999-12-31T23:59:59Z",
            "2026-01-01T00:00:00.123456789+14:00",
        ] {
            assert_eq!(code(with(field, json!(date))), "accepted", "{field} {date}");
        }
    }
}
