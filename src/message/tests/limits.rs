//! The limits of a message: its size, its events, its nesting, its properties.

use serde_json::json;

use super::*;

/// A message with one event whose payload nests `levels` deep; the message around it adds three
/// levels.
fn nested(levels: usize) -> String {
    let payload = format!("{}0{}", "[".repeat(levels), "]".repeat(levels));
    without("events").replacen('{', &format!(r#"{{"events":[{{"payload":{payload}}}],"#), 1)
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
    let refused = |content_type: Option<&str>, encoding: Option<&str>, headers_too_large: bool| {
        let content_type = content_type.map(str::to_owned);
        let beside = Envelope {
            content_type,
            content_encoding: encoding.map(str::to_owned),
            headers_too_large,
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
        assert_eq!(refused(Some(right), None, false), "accepted");
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
            refused(wrong, None, false),
            "unsupported_content_type",
            "{wrong:?}"
        );
    }
    for right in ["", "identity", "utf-8", "UTF-8", "utf8", "Utf8"] {
        assert_eq!(
            refused(Some("application/json"), Some(right), false),
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
            refused(Some("application/json"), Some(wrong), false),
            "unsupported_content_encoding",
            "{wrong:?}"
        );
    }
    assert_eq!(
        refused(Some("application/json"), None, true),
        "headers_too_large"
    );
}
