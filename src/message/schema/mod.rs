//! JSON Schemas (2020-12) of what producers send and hear, made of the types themselves, and an AsyncAPI document that puts them
//! together. The files beside this one are what `dispatch schema` prints; a test compares them.
//!
//! A message that is valid after its schema is taken, but for what a schema cannot say: `source` and `dedupe_key` may come as AMQP
//! properties instead, and one of the two ways is required; 1 MiB, 64 arrays and objects inside each other; a key given twice;
//! whole numbers written with a fraction (`1.0`); days that no calendar has; times that lie outside the years 0000 to 9999 of UTC;
//! half a surrogate pair in a text.

mod asyncapi;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use schemars::transform::RestrictFormats;
use serde_json::Value;

pub use asyncapi::{Addresses, asyncapi};

use super::{Cancel, Configure, Outcome, wire};

/// Of a job's message.
#[must_use]
pub fn job() -> Value {
    received::<wire::Job>()
}

/// Of a `configure` message.
#[must_use]
pub fn configure() -> Value {
    received::<Configure>()
}

/// Of a `cancel` message.
#[must_use]
pub fn cancel() -> Value {
    received::<Cancel>()
}

/// Of outcome events and replies. Further fields may come with newer workers.
#[must_use]
pub fn outcome() -> Value {
    of::<Outcome>(settings().for_serialize())
}

fn received<T: JsonSchema>() -> Value {
    of::<T>(settings().for_deserialize())
}

/// Without references, so that a schema can stand in another document.
fn settings() -> SchemaSettings {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    // `int64` and the like are Rust's, and mean nothing to others.
    settings.with_transform(RestrictFormats::default())
}

fn of<T: JsonSchema>(settings: SchemaSettings) -> Value {
    settings.into_generator().into_root_schema_for::<T>().into()
}
