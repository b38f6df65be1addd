//! The page of outcome events, from their JSON Schema.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::output::markdown_cell;
use crate::message::schema;

/// A section for each event, with its fields.
pub(super) fn page() -> String {
    let schema = schema::outcome();
    let mut page = "# Events\n\nPrinted by `dispatch reference events`. The worker publishes each event to the exchange \
        `dispatch.events` with the event's name as the routing key, and the same body to the reply queue of the job, if there is \
        one. `dispatch schema outcome` prints the JSON Schema, `dispatch schema asyncapi` all messages.\n"
        .to_owned();
    for event in schema["oneOf"].as_array().into_iter().flatten() {
        let properties = event["properties"].as_object();
        let name = event["properties"]["event"]["const"]
            .as_str()
            .unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            "\n## `{name}`\n\n{}\n",
            event["description"].as_str().unwrap_or_default()
        );
        page.push_str("\n| field | type | always | meaning |\n|---|---|---|---|\n");
        let required: Vec<&str> = event["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (field, value) in properties.into_iter().flatten() {
            let always = if required.contains(&field.as_str()) {
                "yes"
            } else {
                ""
            };
            let _ = writeln!(
                page,
                "| `{field}` | {} | {always} | {} |",
                kind(value),
                markdown_cell(&meaning(field, name, value))
            );
        }
    }
    page
}

/// The type of a field, of one that may be null that of its values.
fn kind(value: &Value) -> String {
    match &value["type"] {
        Value::String(one) => match value["format"].as_str() {
            Some(format) => format!("{one} ({format})"),
            None => one.clone(),
        },
        Value::Array(several) => several
            .iter()
            .filter_map(Value::as_str)
            .filter(|kind| *kind != "null")
            .collect::<Vec<_>>()
            .join(" or "),
        _ => variants(value)
            .next()
            .map_or_else(|| "any".to_owned(), kind),
    }
}

/// What a field may be, other than null.
fn variants(value: &Value) -> impl Iterator<Item = &Value> {
    let of = |name: &str| {
        value[name]
            .as_array()
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    };
    [of("anyOf"), of("oneOf")]
        .concat()
        .into_iter()
        .filter(|variant| variant["type"] != "null")
}

fn meaning(field: &str, event: &str, value: &Value) -> String {
    if field == "event" {
        return format!("`{event}`");
    }
    let own = value["description"].as_str();
    own.or_else(|| variants(value).find_map(|variant| variant["description"].as_str()))
        .unwrap_or_default()
        .to_owned()
}
