//! JSON Schemas (2020-12) of the messages that producers send and receive, generated from the
//! types, and an AsyncAPI document that combines them. `dispatch schema` prints the files in this
//! directory; a test compares them.
//!
//! A message that is valid according to its schema is accepted, with these exceptions, which a
//! schema cannot express: `source` and `dedupe_key` may be AMQP properties instead, and one of the
//! two forms is required; the limits of 1 MiB and of 64 nested arrays and objects; duplicate keys;
//! whole numbers written with a fraction (`1.0`); days that do not exist in the calendar; times
//! outside the years 0000 to 9999 in UTC; half a surrogate pair in a text.

mod asyncapi;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, RestrictFormats};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

pub use asyncapi::{Addresses, asyncapi};

use super::{Cancel, Configure, Outcome, wire};

/// Returns the schema of a job.
#[must_use]
pub fn job() -> Value {
    received::<wire::Job>()
}

/// Returns the schema of a `configure` message.
#[must_use]
pub fn configure() -> Value {
    received::<Configure>()
}

/// Returns the schema of a `cancel` message.
#[must_use]
pub fn cancel() -> Value {
    received::<Cancel>()
}

/// Returns the schema of outcome events and replies. Newer workers may add fields.
#[must_use]
pub fn outcome() -> Value {
    of::<Outcome>(settings().for_serialize())
}

fn received<T: JsonSchema>() -> Value {
    of::<T>(settings().for_deserialize())
}

/// Returns settings without references, so that a schema can be embedded in another document.
fn settings() -> SchemaSettings {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    // Formats such as `int64` are specific to Rust.
    settings
        .with_transform(RestrictFormats::default())
        .with_transform(RecursiveTransform(join_lines))
}

/// Joins the lines of a description, so that it does not depend on where a comment wraps.
fn join_lines(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

fn of<T: JsonSchema>(settings: SchemaSettings) -> Value {
    settings.into_generator().into_root_schema_for::<T>().into()
}
