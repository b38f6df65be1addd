//! A value that cannot be represented does not make its message unreadable, and two different keys
//! do not become equal.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::message::repair::repair;

/// Escapes of halves of surrogate pairs that stand alone, and their replacements.
const HALVES: [(&str, &str); 9] = [
    (r"\ud83d", r"\ufffd"),
    (r"\uDE00", r"\ufffd"),
    (r"\ude00\ud83d", r"\ufffd\ufffd"),
    (r"\ud83dx", r"\ufffdx"),
    (r"\ud83d\ud83d", r"\ufffd\ufffd"),
    (r"\uD83D\ud83d\ude00", r"\ufffd\ud83d\ude00"),
    (r"\ud83d\u0041", r"\ufffd\u0041"),
    (r"\ud83d\n", r"\ufffd\n"),
    (r"\\\ud83d", r"\\\ufffd"),
];
/// Strings without such halves, and text that is not an escape.
const WHOLE: [&str; 9] = [
    r"\ud83d\ude00",
    r"\uD83D\uDE00",
    r"\\ud83d",
    r"\\\\ud83d",
    r"\u00e9",
    r"\ud7ff\ue000",
    "😀",
    r"\ud83",
    r"\u+83d",
];
/// Numbers beyond the largest double.
const HUGE: [&str; 6] = [
    "1e999",
    "-1E+999",
    "1.7976931348623159e308",
    "123.4e400",
    "1e99999999999999999999",
    "-0.1e310",
];
/// Numbers at the limits of a double's range, and text that is not a JSON number.
const OTHER: [&str; 11] = [
    "0e999",
    "1e308",
    "-1.7976931348623157e308",
    "1e-999",
    "18446744073709551616",
    "01e999",
    "1e",
    "1e999.5",
    "--1e999",
    "1e9-99",
    "+1e99",
];

fn repaired(text: &str) -> String {
    repair(text).text.into_owned()
}

/// [`message`] with `json` as the value of a field.
fn holding(field: &str, json: &str) -> String {
    with(field, Value::from("HOLE")).replace("\"HOLE\"", json)
}

/// Returns the path in the refusal.
fn refused_at(body: &str) -> String {
    match decode(body).unwrap_err() {
        Refusal::Invalid { path, .. } => path,
        other => panic!("{body}: {other:?}"),
    }
}

#[test]
fn a_half_of_a_surrogate_pair_becomes_the_replacement_character_and_a_pair_stays() {
    for (half, instead) in HALVES {
        let text = format!(r#"{{"{half}":["{half}","x"]}}"#);
        assert_eq!(
            repaired(&text),
            format!(r#"{{"{instead}":["{instead}","x"]}}"#)
        );
    }
    for whole in WHOLE {
        let text = format!(r#"["{whole}"]"#);
        assert_eq!(repaired(&text), text);
    }
    for cut in [
        r#"["\ud83d"#,
        r#"["\ud83d\"#,
        r#"["\ud83d\u"#,
        r#"["\ud83d\ude"#,
    ] {
        assert_eq!(repaired(cut), cut.replace(r"\ud83d", r"\ufffd"));
    }
    assert_eq!(
        repaired(r#""a" \ud83d"#),
        r#""a" \ud83d"#,
        "outside of a string"
    );
}

#[test]
fn a_number_that_cannot_be_represented_becomes_a_string_of_its_characters() {
    let long = "9".repeat(309);
    for huge in HUGE.into_iter().chain([long.as_str()]) {
        assert_eq!(
            repaired(&format!("{{\"a\":{huge} ,\"b\":[{huge}]}}")),
            format!("{{\"a\":\"{huge}\" ,\"b\":[\"{huge}\"]}}")
        );
        assert_eq!(repaired(huge), format!("\"{huge}\""));
    }
    let (text, in_range) = (format!("\"{}\"", "1e999".repeat(400)), "9".repeat(308));
    for other in OTHER.into_iter().chain([text.as_str(), in_range.as_str()]) {
        assert_eq!(repaired(&format!("[{other}]")), format!("[{other}]"));
    }
}

#[test]
fn text_that_is_not_json_does_not_become_json() {
    for text in [
        "{1e999:1}",
        "{1e999 \t\r\n:1}",
        "[1e999:1]",
        "{1e999}",
        "[1e999 1e999]",
        "[1e999\"a\"]",
        "[true1e999]",
        "+1e999",
    ] {
        assert!(
            serde_json::from_str::<Value>(&repaired(text)).is_err(),
            "{text}"
        );
        assert_eq!(code(text), "not_json", "{text}");
    }
    assert_eq!(
        decode(r#"{"a":1e999,]"#).unwrap_err().to_string(),
        "the body is not JSON: key must be a string at line 1 column 12"
    );
}

/// If any of these were read again from each position, the test would not end.
#[test]
fn a_mebibyte_of_anything_is_read_once() {
    let filled = |piece: &str| piece.repeat(MESSAGE_LIMIT / piece.len());
    for piece in [
        "1", "1e999", "1e999 ", " ", "[1e999", "\"", "\\", "\\u", "\\ud83d", "-", "e", "{\"a\":",
    ] {
        for text in [
            filled(piece),
            format!("\"{}", filled(piece)),
            format!("1e999{}", filled(piece)),
        ] {
            assert!(repaired(&text).len() < 2 * text.len(), "{piece}");
        }
    }
    let spaced = format!("[1e999{}]", " ".repeat(MESSAGE_LIMIT));
    assert_eq!(repaired(&spaced), spaced.replace("1e999", "\"1e999\""));
}

#[test]
fn depth_counts_as_in_the_text_itself() {
    for (text, depth) in [
        ("1", 0),
        ("[]", 1),
        (r#"{"a":[{}],"[[[":"\"[["}"#, 3),
        ("[[1e999]]", 2),
        ("]]][", 1),
    ] {
        assert_eq!(repair(text).depth, depth, "{text}");
    }
}

#[test]
fn a_spoiled_value_in_a_payload_costs_neither_the_message_nor_its_event() {
    for (spoiled, instead) in [(r#""\ud83d""#, r#""\ufffd""#), ("1e999", r#""1e999""#)] {
        let payload = |value: &str| format!(r#"{{"id":"e","n":[{value},1.0e1]}}"#);
        let body = holding(
            "events",
            &format!(
                r#"[{{"payload":{}}},{{"payload":{{"b":  1}}}}]"#,
                payload(spoiled)
            ),
        );
        let events = request(&body).events;
        assert_eq!(events[0].payload.get(), payload(instead));
        assert_eq!(
            events[1].payload.get(),
            r#"{"b":  1}"#,
            "nothing else of a payload is changed"
        );
    }
}

#[test]
fn messages_that_differ_in_a_number_past_all_numbers_are_different() {
    let digest =
        |number: &str| match decode(holding("events", &format!(r#"[{{"payload":{number}}}]"#))) {
            Ok(Intake::Request { digest, .. }) => digest,
            other => panic!("{other:?}"),
        };
    assert_ne!(digest("1e999"), digest("2e999"));
    assert_eq!(digest("1e999"), digest(" 1e999 "));
}

#[test]
fn a_spoiled_value_in_a_field_that_is_read_is_refused_with_its_path() {
    for spoiled in [r#""k\ud83d""#, "1e999"] {
        for field in [
            "source",
            "dedupe_key",
            "organization",
            "account",
            "identity",
            "deadline",
        ] {
            assert_eq!(refused_at(&holding(field, spoiled)), field, "{spoiled}");
        }
        assert_eq!(refused_at(&holding("schema", spoiled)), "schema");
        assert_eq!(
            refused_at(&holding("notify", &format!("[\"a\",{spoiled}]"))),
            "notify[1]"
        );
        assert_eq!(
            refused_at(&holding("search", &format!("{{\"text\":{spoiled}}}"))),
            "search.text"
        );
        assert_eq!(
            refused_at(&holding(
                "search",
                &format!("{{\"text\":\"t\",\"limit\":{spoiled}}}")
            )),
            "search.limit"
        );
        let click = format!("{{\"application_id\":\"1\",\"token\":{spoiled}}}");
        assert_eq!(
            refused_at(&holding("interaction", &click)),
            "interaction.token"
        );
        for field in ["source", "dedupe_key"] {
            let newer = holding(field, spoiled).replace(r#""schema":1"#, r#""schema":2"#);
            assert_eq!(refused_at(&newer), field, "{spoiled} of a newer schema");
        }
    }
    let text = decode(holding("search", r#"{"text":"t","limit":1e999}"#))
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("at `search.limit`: expected a value that can be represented, got number out of range at"),
        "{text}"
    );
    let name = message().to_string().replacen('{', r#"{"\ud83d":1,"#, 1);
    assert_eq!(code(&name), "invalid_request");
}

#[test]
fn an_unrepresentable_value_in_a_newer_schema_is_left_to_a_newer_worker() {
    let body = holding("whatever", r#"{"\ud83d":["\ud83d",1e999]}"#)
        .replace(r#""schema":1"#, r#""schema":2"#);
    let Ok(Intake::Newer(newer)) = decode(&body) else {
        panic!()
    };
    assert_eq!(
        (newer.source.as_str(), newer.dedupe_key.as_str()),
        ("hooks", "k-1")
    );
}

#[test]
fn a_spoiled_secret_costs_its_event_alone() {
    let body = holding(
        "events",
        r#"[{"payload":{},"shared_secret":"s\ud83d"},{"payload":{},"shared_secret":null}]"#,
    );
    let secrets: Vec<_> = request(&body)
        .events
        .into_iter()
        .map(|event| event.secret_sha256)
        .collect();
    assert!(
        matches!(secrets.as_slice(), [Some(hash), None] if hash.len() == 64),
        "{secrets:?}"
    );
    let wrong = with("events", json!([{ "payload": {}, "shared_secret": 7 }]));
    assert_eq!(refused_at(&wrong), "events[0].shared_secret");
}

#[test]
fn a_control_message_of_a_spoiled_key_ends_no_job() {
    let cancel = |key: &str| {
        let body = format!(r#"{{"schema":1,"source":"s","dedupe_key":{key}}}"#);
        decode_control::<Cancel>(body.as_bytes(), &envelope()).map(|cancel| cancel.dedupe_key)
    };
    assert_eq!(cancel(r#""k\ufffd""#).unwrap(), "k\u{fffd}");
    for spoiled in [r#""k\ud83d""#, "1e999"] {
        let refusal = cancel(spoiled).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Invalid { path, .. } if path == "dedupe_key"),
            "{spoiled}: {refusal}"
        );
    }
    assert_eq!(
        decode_control::<Cancel>(br#"{"schema":2,"n":1e999}"#, &envelope())
            .unwrap_err()
            .code(),
        "unsupported_schema"
    );
}

#[test]
fn one_byte_order_mark_at_the_beginning_is_skipped() {
    let marked = format!("\u{feff}{}", message());
    assert_eq!(request(&marked), request(&message().to_string()));
    let cancel = "\u{feff}{\"schema\":1,\"source\":\"s\",\"dedupe_key\":\"k\"}";
    assert_eq!(
        decode_control::<Cancel>(cancel.as_bytes(), &envelope())
            .unwrap()
            .source,
        "s"
    );
    assert_eq!(code(format!("\u{feff}{marked}")), "not_json");
    assert_eq!(code(format!("{}\u{feff}", message())), "not_json");
    assert_eq!(code("\u{feff}"), "not_json");
    assert_eq!(
        decode([b"\xef\xbb\xbf{", b"\xff".as_slice()].concat()).unwrap_err(),
        Refusal::NotUtf8(4)
    );
}

#[test]
fn a_refused_message_is_shown_as_far_as_it_can_be_parsed() {
    assert_eq!(shown_string(r#""k\ud83d""#).as_deref(), Some("k\u{fffd}"));
    assert_eq!(shown_string("7"), None);
    assert_eq!(without_mark(b"\xef\xbb\xbf{}"), b"{}");
    assert_eq!(
        read_body("\u{feff}{\"a\":\"\\ud83d\"}".as_bytes()),
        Some(json!({ "a": "\u{fffd}" }))
    );
    assert_eq!(read_body(b"\xff"), None);
}

/// Generates pieces of JSON, with and without unrepresentable values, and pieces of other text.
fn fragment() -> impl Strategy<Value = String> {
    let plain = [
        "{", "}", "[", "]", ",", ":", " ", "\n", "true", "nul", "\"", "\\", "\\u", "a", "é", "0",
        "-", "e", "1", ".",
    ];
    let escapes = HALVES.map(|(half, _)| half).into_iter().chain(WHOLE);
    let strings = escapes.clone().map(|text| format!("\"{text}\""));
    let numbers = HUGE.into_iter().chain(OTHER).map(str::to_owned);
    let pieces = plain
        .into_iter()
        .chain(escapes)
        .map(str::to_owned)
        .chain(strings)
        .chain(numbers);
    prop::sample::select(pieces.collect::<Vec<_>>())
}

/// Generates text that is grammatically JSON and may hold unrepresentable values anywhere.
fn spoiled_json() -> impl Strategy<Value = String> {
    let escapes = HALVES
        .map(|(half, _)| half)
        .into_iter()
        .chain(WHOLE[..7].iter().copied());
    let string =
        prop::sample::select(escapes.collect::<Vec<_>>()).prop_map(|text| format!("\"{text}\""));
    let number = prop::sample::select([&HUGE[..], &OTHER[..5]].concat()).prop_map(str::to_owned);
    let leaf = prop_oneof![string.clone(), number, Just(" null ".to_owned())];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let fields = proptest::collection::vec((string.clone(), inner.clone()), 0..4);
        let fields = fields.prop_map(|fields| {
            fields
                .into_iter()
                .map(|(name, value)| format!("{name} : {value}"))
                .collect()
        });
        prop_oneof![
            proptest::collection::vec(inner, 0..4)
                .prop_map(|items| format!("[{}]", items.join(","))),
            fields.prop_map(|fields: Vec<String>| format!("{{{}}}", fields.join(","))),
        ]
    })
}

fn is_json(text: &str) -> bool {
    // This checks only the grammar.
    serde_json::from_str::<&RawValue>(text).is_ok()
}

fn is_readable(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok()
}

proptest! {
    #[test]
    fn readable_text_is_unchanged(value in super::properties::any_json(), pieces in proptest::collection::vec(fragment(), 0..8)) {
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap(), pieces.concat()] {
            if is_readable(&text) {
                prop_assert_eq!(repaired(&text), text);
            }
        }
    }

    #[test]
    fn only_json_can_be_parsed_after_a_repair(
        json in spoiled_json(),
        pieces in proptest::collection::vec(fragment(), 0..12),
        cut: prop::sample::Index,
    ) {
        prop_assert!(is_json(&json), "{}", json);
        let at = (0..=json.len()).filter(|at| json.is_char_boundary(*at)).nth(cut.index(json.chars().count() + 1)).unwrap();
        for text in [json[..at].to_owned() + &pieces.concat() + &json[at..], pieces.concat(), json] {
            let repaired = repaired(&text);
            prop_assert_eq!(is_json(&text), is_readable(&repaired), "{} became {}", text, repaired);
            prop_assert_eq!(repair(&repaired).text, repaired.as_str(), "again");
            prop_assert!(repaired.len() <= text.len() + 2 * text.len() / 5);
        }
    }
}
