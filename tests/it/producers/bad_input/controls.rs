//! Rows that are not jobs: choices, cancels, wake-ups, and misrouted messages.

use dispatch_worker::broker::{DEAD, KEY_CANCEL, KEY_CONFIGURE, Outgoing, WAKE};
use dispatch_worker::job::JobId;
use serde_json::{Value, json};

use super::table::{End, Row, letter, message};
use crate::support::{acme, intake};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = misaddressed();
    for (key, what) in [(KEY_CONFIGURE, &CHOICES), (KEY_CANCEL, &ENDS)] {
        rows.extend(unreadable(key, what));
    }
    rows
}

/// The names of the rows of [`unreadable`] for choices.
const CHOICES: [&str; 6] = [
    "a choice that is not JSON",
    "a choice that is not UTF-8",
    "a choice of 1 MiB + 1",
    "a choice that is a text",
    "a choice compressed",
    "a choice twice",
];
const ENDS: [&str; 6] = [
    "an end that is not JSON",
    "an end that is not UTF-8",
    "an end of 1 MiB + 1",
    "an end that is a text",
    "an end compressed",
    "an end twice",
];

/// Returns control messages that cannot be parsed; they are checked as jobs are.
fn unreadable(key: &str, names: &[&'static str; 6]) -> Vec<Row> {
    let right = match key {
        KEY_CONFIGURE => json!({"schema": 1, "job_id": JobId::fresh(), "account": "a"}),
        _ => json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "of no job"}),
    };
    let right = right.to_string();
    let [not_json, not_utf8, too_large, a_text, compressed, twice] = *names;
    let row = |name, body: Vec<u8>, code| Row {
        message: Outgoing {
            routing_key: key.to_owned(),
            ..intake(body)
        },
        ..letter(name, "", code)
    };
    let sent_as = |row: Row, content_type: Option<&str>, content_encoding: Option<&str>| {
        let (content_type, content_encoding) = (
            content_type.map(str::to_owned),
            content_encoding.map(str::to_owned),
        );
        Row {
            message: Outgoing {
                content_type,
                content_encoding,
                ..row.message
            },
            ..row
        }
    };
    let spaced = |spaces: usize| format!("{right}{}", " ".repeat(spaces)).into_bytes();
    let to_length = (1 << 20) + 1 - right.len();
    vec![
        row(not_json, right.replace('}', "").into_bytes(), "not_json"),
        row(not_utf8, [right.as_bytes(), b"\xff"].concat(), "not_utf8"),
        row(too_large, spaced(to_length), "too_large"),
        sent_as(
            row(a_text, spaced(1), "unsupported_content_type"),
            Some("text/plain"),
            None,
        ),
        sent_as(
            row(compressed, spaced(2), "unsupported_content_encoding"),
            None,
            Some("gzip"),
        ),
        row(
            twice,
            right
                .replacen("\"schema\"", "\"schema\":1,\"schema\"", 1)
                .into_bytes(),
            "invalid_request",
        ),
    ]
}

/// Returns messages with another routing key, and messages that arrived through another exchange
/// or queue.
fn misaddressed() -> Vec<Row> {
    let unknown = JobId::fresh();
    [
        wake_ups(unknown),
        choices(unknown),
        cancels(),
        by_other_ways(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn keyed(name: &'static str, key: &str, body: &Value, end: End) -> Row {
    let message = Outgoing {
        routing_key: key.to_owned(),
        ..intake(body.to_string())
    };
    Row {
        name,
        message,
        end,
        raw: None,
    }
}

fn wake_ups(unknown: JobId) -> Vec<Row> {
    let woken = |name, key: &str, body: Value, end| {
        let Row { message, .. } = keyed(name, key, &body, End::Nothing);
        Row {
            name,
            message: Outgoing {
                exchange: WAKE,
                ..message
            },
            end,
            raw: None,
        }
    };
    vec![
        woken(
            "a wake-up for no row",
            "wake.dispatch",
            json!({"job_id": unknown}),
            End::Nothing,
        ),
        woken(
            "a wake-up that names no job",
            "wake.dispatch",
            json!({"job_id": "all"}),
            End::DeadLetter("invalid_wake_up"),
        ),
        woken(
            "a wake-up in another lane",
            "wake.messaging",
            json!("wake"),
            End::DeadLetter("invalid_wake_up"),
        ),
    ]
}

fn choices(unknown: JobId) -> Vec<Row> {
    let configure = |account: &str| json!({"schema": 1, "job_id": unknown, "account": account});
    vec![
        keyed(
            "a choice for no job",
            KEY_CONFIGURE,
            &configure("a"),
            End::DeadLetter("no_such_job"),
        ),
        keyed(
            "a choice for all jobs",
            KEY_CONFIGURE,
            &json!({"schema": 1, "account": "a"}),
            End::DeadLetter("invalid_request"),
        ),
        keyed(
            "a choice of a newer schema",
            KEY_CONFIGURE,
            &json!({"schema": 2}),
            End::DeadLetter("unsupported_schema"),
        ),
    ]
}

fn cancels() -> Vec<Row> {
    let cancel = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "of no job"});
    vec![
        keyed(
            "an end for a job that never comes",
            KEY_CANCEL,
            &cancel,
            End::Nothing,
        ),
        keyed(
            "an end of a newer schema",
            KEY_CANCEL,
            &json!({"schema": 2, "all": true}),
            End::DeadLetter("unsupported_schema"),
        ),
        keyed(
            "an end for NUL",
            KEY_CANCEL,
            &json!({"schema": 1, "source": "s", "dedupe_key": "\0"}),
            End::DeadLetter("invalid_request"),
        ),
        keyed(
            "an end for all jobs",
            KEY_CANCEL,
            &json!({"schema": 1}),
            End::DeadLetter("invalid_request"),
        ),
    ]
}

/// Returns messages that were sent to a queue itself or through the exchange of dead letters, and
/// one with NUL in its properties.
fn by_other_ways() -> Vec<Row> {
    let given_up = |name, key: &str, end| {
        let message = Outgoing {
            exchange: DEAD,
            routing_key: key.to_owned(),
            ..intake(message(name).to_string())
        };
        Row {
            name,
            message,
            end,
            raw: None,
        }
    };
    let by_queue = Outgoing {
        exchange: "",
        routing_key: "dispatch.jobs".to_owned(),
        ..intake(message("sent to the queue itself").to_string())
    };
    let nul = |text: &str| Some(format!("{text}\0"));
    let nul_beside = Outgoing {
        message_id: nul("m"),
        app_id: nul("a"),
        reply_to: nul("r"),
        correlation_id: nul("c"),
        ..intake(message("NUL in the properties").to_string())
    };
    let none = End::Handled {
        accepted: 0,
        ignored: &[],
    };
    vec![
        Row {
            name: "sent to the queue itself",
            message: by_queue,
            end: End::DeadLetter("unknown_routing_key"),
            raw: None,
        },
        given_up(
            "given up, with a key that nobody knows",
            "nonsense\0",
            End::DeadLetter("unknown_routing_key"),
        ),
        given_up("given up, and right", "job", none),
        Row {
            name: "NUL in the properties",
            message: nul_beside,
            end: End::Handled {
                accepted: 0,
                ignored: &[],
            },
            raw: None,
        },
    ]
}
