//! The JSON Schemas and the decoder agree, except where a schema cannot express a rule.

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::message::schema;

fn validator(schema: &Value) -> Validator {
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

/// Returns whether the decoder accepts the message.
fn is_taken(message: &Value) -> bool {
    matches!(decode(message.to_string()), Ok(Intake::Request { .. }))
}

/// Returns whether only the decoder can judge the message: the origin of source and key, whole
/// numbers written as fractions, leap seconds, and times that UTC cannot express.
fn is_beyond_a_schema(message: &Value) -> bool {
    let is_fraction = |value: Option<&Value>| value.is_some_and(|number| number.is_f64());
    let no_key = ["source", "dedupe_key"]
        .iter()
        .any(|name| message.get(name).is_none_or(Value::is_null));
    let fraction =
        is_fraction(message.get("schema")) || is_fraction(message.pointer("/search/limit"));
    let dates = ["not_before", "deadline"]
        .iter()
        .filter_map(|name| message.get(name)?.as_str());
    let odd_date = dates
        .into_iter()
        .any(|date| date.contains(":60") || date.starts_with("0000") || date.starts_with("9999"));
    no_key || fraction || odd_date
}

/// Values of each field, valid and invalid, around every limit.
fn interesting() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("schema", vec![json!(1), json!(0), json!("1"), Value::Null]),
        ("source", texts(SOURCE_LENGTH)),
        ("dedupe_key", texts(KEY_LENGTH)),
        ("organization", texts(NAME_LENGTH)),
        ("account", texts(ACCOUNT_LENGTH)),
        ("identity", texts(ACCOUNT_LENGTH)),
        ("search", searches()),
        ("events", events()),
        ("notify", lists_of_destinations()),
        ("interaction", interactions()),
        ("not_before", dates()),
        ("deadline", dates()),
        ("unheard_of", vec![json!(1), Value::Null]),
    ]
}

fn texts(limit: usize) -> Vec<Value> {
    let wide = "é".repeat(limit);
    vec![
        json!("a"),
        json!(""),
        json!("a\0b"),
        json!("a\nb"),
        json!("é"),
        json!(wide),
        json!(wide + "é"),
        json!(7),
        Value::Null,
    ]
}

fn dates() -> Vec<Value> {
    vec![
        json!("2026-01-02T03:04:05Z"),
        json!("2026-02-30T00:00:00Z"),
        json!("2026-01-02"),
        json!("2026-01-02T03:04:05+14:00"),
        json!("soon"),
        json!(""),
        Value::Null,
        json!(1),
    ]
}

fn events() -> Vec<Value> {
    vec![
        json!([]),
        json!([{}]),
        json!([{"payload": null}]),
        json!([{"payload": {}, "shared_secret": "s"}]),
        json!([{"payload": {}, "secret": 1}]),
        json!(vec![json!({"payload": 1}); 200]),
        json!(vec![json!({"payload": 1}); 201]),
        Value::Null,
        json!({}),
    ]
}

fn lists_of_destinations() -> Vec<Value> {
    vec![
        json!([]),
        json!(["a"]),
        json!([""]),
        json!([1]),
        json!(vec!["a"; 50]),
        json!(vec!["a"; 51]),
        json!(["a\0"]),
        Value::Null,
        json!("a"),
    ]
}

fn searches() -> Vec<Value> {
    let shapes = [
        json!({}),
        json!({"text": ""}),
        json!({"text": "t"}),
        json!({"text": "t", "states": null}),
        json!({"text": "t", "x": 1}),
        Value::Null,
        json!("t"),
    ];
    let limits = [
        json!(1),
        json!(0),
        json!(1000),
        json!(1001),
        json!(-1),
        json!(1.5),
        json!("1"),
    ];
    let with = |field: &'static str| move |value: Value| json!({"text": "t", field: value});
    let names = lists_of_search_names();
    shapes
        .into_iter()
        .chain(limits.map(with("limit")))
        .chain(projects().into_iter().map(with("project")))
        .chain(names.iter().cloned().map(with("states")))
        .chain(names.iter().cloned().map(with("work_item_types")))
        .collect()
}

fn projects() -> Vec<Value> {
    let odd = [
        "..", ".", "...", " ", " .. ", ".\t.", "a\u{7f}", "a\u{85}b", "\u{a0}..", "a/b", "%2e%2e",
        "a.b", "x.",
    ];
    let mut projects = texts(SEARCH_NAME_LENGTH);
    projects.extend(odd.map(Value::from));
    projects
}

fn lists_of_search_names() -> Vec<Value> {
    let long = "é".repeat(SEARCH_NAME_LENGTH);
    vec![
        json!([]),
        json!(["a"]),
        json!([""]),
        json!([1]),
        json!(["a\0"]),
        json!([long]),
        json!([long + "é"]),
        json!(vec!["a"; SEARCH_NAMES_LIMIT]),
        json!(vec!["a"; SEARCH_NAMES_LIMIT + 1]),
    ]
}

fn interactions() -> Vec<Value> {
    let click = |id: &str, token: &str, message: Value| json!({"application_id": id, "token": token, "message_id": message});
    vec![
        click("1", "t", Value::Null),
        click("1", "t", json!("@original")),
        click("1", "t", json!("1/2")),
        click("..", "t", Value::Null),
        click(&"1".repeat(21), "t", Value::Null),
        click("1", "", Value::Null),
        click("1", "t\0", Value::Null),
        click("1", "..", Value::Null),
        click("1", "a/b", Value::Null),
        click("1", "aW50_-=+:.x", Value::Null),
        click("1", &"t".repeat(TOKEN_LENGTH), Value::Null),
        click("1", &"t".repeat(TOKEN_LENGTH + 1), Value::Null),
        json!({"application_id": "1"}),
        json!({"token": 1}),
        Value::Null,
    ]
}

#[test]
fn a_field_is_valid_exactly_where_the_decoder_takes_it() {
    let validator = validator(&schema::job());
    let (mut taken, mut refused) = (0, 0);
    for (field, values) in interesting() {
        for value in values {
            let mut message = message();
            message[field] = value;
            if is_beyond_a_schema(&message) {
                continue;
            }
            let is_valid = validator.is_valid(&message);
            assert_eq!(is_valid, is_taken(&message), "{message}");
            *(if is_valid { &mut taken } else { &mut refused }) += 1;
        }
    }
    assert!(
        taken > 25 && refused > 45,
        "{taken} taken, {refused} refused"
    );
    for field in ["schema", "organization"] {
        let body: Value = serde_json::from_str(&without(field)).unwrap();
        assert!(!validator.is_valid(&body) && !is_taken(&body), "{field}");
    }
}

#[test]
fn control_messages_are_valid_exactly_where_the_decoder_takes_them() {
    let agree = |schema: &Value, is_taken: &dyn Fn(&str) -> bool, good: &Value| {
        let validator = validator(schema);
        assert!(
            validator.is_valid(good) && is_taken(&good.to_string()),
            "{good}"
        );
        let long = "é".repeat(256);
        for field in good.as_object().unwrap().keys() {
            for value in [
                json!(1),
                json!(2),
                json!(0),
                json!(""),
                json!("a"),
                json!("a\0"),
                json!(long),
                Value::Null,
                json!([]),
            ] {
                let mut message = good.clone();
                message[field] = value;
                assert_eq!(
                    validator.is_valid(&message),
                    is_taken(&message.to_string()),
                    "{message}"
                );
            }
            let mut message = good.clone();
            message.as_object_mut().unwrap().remove(field);
            assert!(
                !validator.is_valid(&message) && !is_taken(&message.to_string()),
                "{message}"
            );
        }
        let mut more = good.clone();
        more["more"] = json!(1);
        assert!(
            !validator.is_valid(&more) && !is_taken(&more.to_string()),
            "{more}"
        );
    };
    let configure = json!({"schema": 1, "job_id": JobId::fresh(), "account": "a"});
    let is_configure =
        |body: &str| decode_control::<Configure>(body.as_bytes(), &envelope()).is_ok();
    agree(&schema::configure(), &is_configure, &configure);
    let cancel = json!({"schema": 1, "source": "s", "dedupe_key": "k"});
    let is_cancel = |body: &str| decode_control::<Cancel>(body.as_bytes(), &envelope()).is_ok();
    agree(&schema::cancel(), &is_cancel, &cancel);
}

#[test]
fn every_schema_is_one() {
    for schema in [
        schema::job(),
        schema::configure(),
        schema::cancel(),
        schema::outcome(),
    ] {
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        jsonschema::meta::validate(&schema).unwrap();
    }
}

proptest! {
    #[test]
    fn a_message_is_valid_exactly_if_it_decodes(
        picks in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..5),
    ) {
        let table = interesting();
        let mut message = message();
        for (field, value) in picks {
            let (field, values) = field.get(&table);
            message[*field] = value.get(values).clone();
        }
        if !is_beyond_a_schema(&message) {
            prop_assert_eq!(validator(&schema::job()).is_valid(&message), is_taken(&message), "{}", message);
        }
    }
}
