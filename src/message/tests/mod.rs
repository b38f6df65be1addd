//! Decoding of bad input: the refusal of each kind of message, and properties that no message can
//! break.

mod properties;
mod repair;
mod schema;
mod secrets;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;
use crate::secrets::Keyring;

fn ring() -> Keyring {
    Keyring::parse(&SecretString::from(format!("k1:{}=", "A".repeat(43)))).unwrap()
}

fn envelope() -> Envelope {
    Envelope {
        content_type: Some("application/json".to_owned()),
        ..Envelope::default()
    }
}

fn message() -> Value {
    json!({ "schema": 1, "source": "hooks", "dedupe_key": "k-1", "organization": "acme" })
}

/// [`message`] with one field replaced.
fn with(field: &str, value: Value) -> String {
    let mut message = message();
    message[field] = value;
    message.to_string()
}

fn without(field: &str) -> String {
    let mut message = message();
    message.as_object_mut().unwrap().remove(field);
    message.to_string()
}

fn decode(body: impl AsRef<[u8]>) -> Result<Intake, Refusal> {
    decode_intake(body.as_ref(), &envelope(), &ring(), JobId::fresh())
}

fn request(body: &str) -> Request {
    match decode(body) {
        Ok(Intake::Request { request, .. }) => *request,
        other => panic!("{other:?}"),
    }
}

fn code(body: impl AsRef<[u8]>) -> &'static str {
    decode(body)
        .err()
        .map_or("accepted", |refusal| refusal.code())
}

/// A message with one event whose payload nests `levels` deep; the message around it adds three
/// levels.
fn nested(levels: usize) -> String {
    let payload = format!("{}0{}", "[".repeat(levels), "]".repeat(levels));
    without("events").replacen('{', &format!(r#"{{"events":[{{"payload":{payload}}}],"#), 1)
}

#[test]
fn the_smallest_message_is_a_request() {
    let request = request(&message().to_string());
    assert_eq!(
        (request.source.as_str(), request.dedupe_key.as_str()),
        ("hooks", "k-1")
    );
    assert_eq!(
        (
            request.organization.as_str(),
            request.account,
            request.notify
        ),
        ("acme", None, None)
    );
    assert!(request.events.is_empty());
}

#[test]
fn what_is_not_json_is_refused_as_such() {
    let cut = message().to_string();
    for body in [
        "",
        " ",
        "hello",
        "{",
        "[1,]",
        "{'a':1}",
        "{} {}",
        "nul",
        "+1",
        "[NaN]",
        "-Infinity",
        &cut[..cut.len() - 1],
    ] {
        assert_eq!(code(body), "not_json", "{body:?}");
    }
    assert_eq!(code(format!("{} x", message())), "not_json");
}

#[test]
fn bytes_that_are_no_text_are_refused_as_such() {
    let whole = message().to_string().into_bytes();
    for bad in [
        &b"\xff"[..],
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
    ] {
        let body = [&whole[..12], bad, &whole[12..]].concat();
        assert_eq!(decode(&body).unwrap_err(), Refusal::NotUtf8(12), "{bad:?}");
    }
}

#[test]
fn a_surrogate_pair_is_one_character() {
    let pair = with("account", json!("H")).replace("\"H\"", r#""\ud83d\ude00""#);
    assert_eq!(request(&pair).account.as_deref(), Some("😀"));
}

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
    let search = |limit: i64| json!({ "text": "t", "limit": limit });
    let narrowed = |field: &str, value: Value| json!({ "text": "t", field: value });
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
        ("search", json!("text")),
        ("search", json!({ "text": "" })),
        ("search", search(0)),
        ("search", search(-1)),
        ("search", search(i64::from(SEARCH_LIMIT) + 1)),
        ("search", search(i64::MAX)),
        ("search", narrowed("project", json!(""))),
        ("search", narrowed("project", json!(".."))),
        ("search", narrowed("project", json!(".\t."))),
        (
            "search",
            narrowed("project", json!("x".repeat(MESSAGE_LIMIT >> 1))),
        ),
        ("search", narrowed("work_item_types", json!("Bug"))),
        ("search", narrowed("work_item_types", json!([""]))),
        (
            "search",
            narrowed(
                "work_item_types",
                json!(vec!["Bug"; SEARCH_NAMES_LIMIT + 1]),
            ),
        ),
        (
            "search",
            narrowed("states", json!(vec!["New"; SEARCH_NAMES_LIMIT + 1])),
        ),
        ("search", narrowed("states", json!([long]))),
        ("notify", json!("ops")),
        ("notify", json!([""])),
        ("notify", json!(names)),
        ("interaction", json!({ "application_id": "1" })),
        (
            "interaction",
            json!({ "application_id": "..", "token": "t" }),
        ),
        ("interaction", json!({ "application_id": "1", "token": "" })),
        (
            "interaction",
            json!({ "application_id": "1", "token": ".." }),
        ),
        (
            "interaction",
            json!({ "application_id": "1", "token": "a/b" }),
        ),
        (
            "interaction",
            json!({ "application_id": "1", "token": "a".repeat(TOKEN_LENGTH + 1) }),
        ),
        (
            "interaction",
            json!({ "application_id": "1", "token": "t", "message_id": "1/2" }),
        ),
        ("not_before", json!(1_700_000_000)),
        ("unheard_of", json!(1)),
    ];
    for (field, value) in rows {
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

#[test]
fn a_mebibyte_is_taken_and_a_byte_more_is_not() {
    let padded = |size: usize| {
        let body = message().to_string();
        format!("{body}{}", " ".repeat(size - body.len()))
    };
    assert_eq!(code(padded(MESSAGE_LIMIT)), "accepted");
    assert_eq!(
        decode(padded(MESSAGE_LIMIT + 1)).unwrap_err(),
        Refusal::TooLarge(MESSAGE_LIMIT + 1)
    );
}

#[test]
fn two_hundred_events_are_taken_and_one_more_is_not() {
    let events = |count: usize| with("events", json!(vec![json!({ "payload": {} }); count]));
    assert_eq!(request(&events(EVENTS_LIMIT)).events.len(), EVENTS_LIMIT);
    assert_eq!(
        decode(events(EVENTS_LIMIT + 1)).unwrap_err(),
        Refusal::TooManyEvents(EVENTS_LIMIT + 1)
    );
}

#[test]
fn nesting_counts_to_sixty_four_and_not_inside_strings() {
    assert_eq!(code(nested(DEPTH_LIMIT - 3)), "accepted");
    assert_eq!(
        decode(nested(DEPTH_LIMIT - 2)).unwrap_err(),
        Refusal::TooDeep
    );
    assert_eq!(code("[".repeat(MESSAGE_LIMIT)), "too_deep");
    assert_eq!(
        code(with(
            "events",
            json!([{ "payload": format!("\\\"{}", "[{".repeat(1000)) }])
        )),
        "accepted"
    );
    assert_eq!(
        code(with(
            "events",
            json!(vec![json!({ "payload": [[]] }); EVENTS_LIMIT])
        )),
        "accepted"
    );
}

#[test]
fn only_plain_json_is_taken() {
    let refused = |content_type: Option<&str>, encoding: Option<&str>, header_bytes: usize| {
        let content_type = content_type.map(str::to_owned);
        let beside = Envelope {
            content_type,
            content_encoding: encoding.map(str::to_owned),
            header_bytes,
            ..envelope()
        };
        let decoded = decode_intake(
            message().to_string().as_bytes(),
            &beside,
            &ring(),
            JobId::fresh(),
        );
        decoded.err().map_or("accepted", |refusal| refusal.code())
    };
    for right in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
    ] {
        assert_eq!(refused(Some(right), None, 0), "accepted");
    }
    for wrong in [
        None,
        Some(""),
        Some("text/plain"),
        Some("application/jsonx"),
        Some("a\0"),
        Some("application/xml; application/json"),
    ] {
        assert_eq!(
            refused(wrong, None, 0),
            "unsupported_content_type",
            "{wrong:?}"
        );
    }
    for right in ["", "identity", "utf-8", "UTF-8", "utf8", "Utf8"] {
        assert_eq!(
            refused(Some("application/json"), Some(right), HEADERS_LIMIT),
            "accepted"
        );
    }
    for wrong in [
        "gzip",
        "GZIP",
        "deflate",
        "utf-16",
        "iso-8859-1",
        "identity, gzip",
        "utf-8 ",
        "\0",
    ] {
        assert_eq!(
            refused(Some("application/json"), Some(wrong), 0),
            "unsupported_content_encoding",
            "{wrong:?}"
        );
    }
    assert_eq!(
        refused(Some("application/json"), None, HEADERS_LIMIT + 1),
        "headers_too_large"
    );
}

#[test]
fn a_newer_schema_is_left_alone_whatever_its_shape() {
    let body = json!({ "schema": 2, "source": "hooks", "dedupe_key": "k-1", "tenant": { "new": true }, "events": "many" });
    let Ok(Intake::Newer(newer)) = decode(body.to_string()) else {
        panic!()
    };
    assert_eq!(
        (
            newer.schema,
            newer.source.as_str(),
            newer.organization.as_str()
        ),
        (2, "hooks", "")
    );
    let named = json!({ "schema": 2, "source": "s", "dedupe_key": "k", "organization": "a\0cme" });
    let Ok(Intake::Newer(newer)) = decode(named.to_string()) else {
        panic!()
    };
    assert_eq!(newer.organization, "a\u{fffd}cme");
    assert_eq!(
        code(json!({ "schema": 2, "source": "hooks" }).to_string()),
        "missing_field"
    );
    let far = json!({ "schema": 3, "source": "hooks", "dedupe_key": "k-1" });
    assert_eq!(code(far.to_string()), "unsupported_schema");
}

#[test]
fn a_control_message_of_another_shape_is_refused() {
    let id = JobId::fresh();
    let good = json!({ "schema": 1, "job_id": id, "account": "a" }).to_string();
    let decoded = decode_control::<Configure>(good.as_bytes(), &envelope()).unwrap();
    assert_eq!((decoded.job_id, decoded.account.as_str()), (id, "a"));
    for (body, code) in [
        (
            r#"{"schema":1,"job_id":"17","account":"a"}"#,
            "invalid_request",
        ),
        (r#"{"schema":1,"account":"a"}"#, "invalid_request"),
        (&good.replace("\"a\"", "\"a\\u0000b\""), "invalid_request"),
        (&good.replace("\"a\"", "\"\""), "invalid_request"),
        (r#"{"schema":1,"#, "not_json"),
        ("[]", "invalid_request"),
    ] {
        assert_eq!(
            decode_control::<Configure>(body.as_bytes(), &envelope())
                .unwrap_err()
                .code(),
            code,
            "{body}"
        );
    }
    let plain = Envelope {
        content_type: None,
        ..envelope()
    };
    assert_eq!(
        decode_control::<Cancel>(good.as_bytes(), &plain)
            .unwrap_err()
            .code(),
        "unsupported_content_type"
    );
}
