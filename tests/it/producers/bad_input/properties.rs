//! Rows about message properties: not UTF-8, too large, nested too deep, or without source and
//! key.

use dispatch_worker::broker::{DEAD, Outgoing};

use super::raw::Raw;
use super::table::{End, Row, letter, message, without, without_key};
use crate::support::intake;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = not_utf8();
    rows.extend(headers());
    rows.extend(names());
    rows
}

fn row(name: &'static str, raw: Raw, end: End) -> Row {
    Row {
        raw: Some(raw),
        ..letter(name, message(name).to_string(), "")
    }
    .to(end)
}

const fn taken() -> End {
    End::Handled {
        accepted: 0,
        ignored: &[],
    }
}

/// Returns properties that are not UTF-8; the driver's parser alone would treat each delivery as a
/// broken connection.
fn not_utf8() -> Vec<Row> {
    let keyless = without_key("a message id that is not UTF-8").to_string();
    let given_up = Outgoing {
        exchange: DEAD,
        routing_key: "\0".to_owned(),
        ..intake(message("given up, with a key that is not UTF-8").to_string())
    };
    let by_key = Raw::json().routing_key(b"\xff");
    vec![
        row(
            "no content type",
            Raw::default(),
            End::DeadLetter("unsupported_content_type"),
        ),
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
            ..row(
                "a message id that is not UTF-8",
                Raw::json().message_id(b"a\xffb"),
                End::DeadLetter("invalid_request"),
            )
        },
        row(
            "properties that are not UTF-8 beside a body that says all",
            Raw::json().everywhere(b"\xff\xfe"),
            taken(),
        ),
        row(
            "a header whose name is not UTF-8",
            Raw::json().header(b"\xff", 10),
            taken(),
        ),
        Row {
            name: "given up, with a key that is not UTF-8",
            message: given_up,
            end: End::DeadLetter("unknown_routing_key"),
            raw: Some(by_key),
        },
    ]
}

/// Returns headers at and beyond the limits. Sizes are those on the wire. Headers nested too deep
/// would overflow the stack of the driver's parser.
fn headers() -> Vec<Row> {
    let too_large = || End::DeadLetter("headers_too_large");
    // The table, the name and the text begin with lengths of four, one and four bytes; one more
    // byte is the type of the text.
    let of_bytes = |bytes: usize| Raw::json().header(b"a", bytes - (4 + 1 + 1 + 1 + 4));
    vec![
        row("headers of 8 KiB", of_bytes(8 << 10), taken()),
        row("headers of 8 KiB + 1", of_bytes((8 << 10) + 1), too_large()),
        row("headers nested 200 deep", Raw::json().nested(200), taken()),
        row(
            "headers nested 15,000 deep",
            Raw::json().nested(15_000),
            too_large(),
        ),
    ]
}

/// Returns messages whose source and key come from properties.
fn names() -> Vec<Row> {
    let row =
        |name: &'static str, field: &str, app_id: Option<String>, message_id: Option<String>| {
            let message = Outgoing {
                app_id,
                message_id,
                ..intake(without(field, name).to_string())
            };
            Row {
                name,
                message,
                end: End::DeadLetter("invalid_request"),
                raw: None,
            }
        };
    let text = |length: usize| Some("x".repeat(length));
    vec![
        row("an application of 65 characters", "source", text(65), None),
        row(
            "an application of 255 characters",
            "source",
            text(255),
            None,
        ),
        row("an application without a name", "source", text(0), None),
        row(
            "an application with NUL",
            "source",
            Some("a\0b".to_owned()),
            None,
        ),
        row(
            "a message id without a character",
            "dedupe_key",
            None,
            text(0),
        ),
    ]
}
