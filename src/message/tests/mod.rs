//! Decoding of bad input: the refusal of each kind of message, and properties that no message can
//! break.

mod fields;
mod fuzz;
mod limits;
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
fn a_body_that_is_not_json_is_refused_as_not_json() {
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
fn bytes_that_are_not_utf_8_are_refused_with_their_position() {
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
fn a_newer_schema_is_kept_for_a_newer_worker_whatever_its_shape() {
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
