//! The comparison of a value with its expected shape.

use dispatch_worker::providers::contract::{Field, Shape};
use serde_json::{Map, Value};

/// Returns the first difference of a value in the witness log's form; `at` is its place in the
/// body.
pub(super) fn shape_differs(shape: &Shape, given: &Value, at: &str) -> Option<String> {
    match (shape, given) {
        (Shape::Of(types), _) if types.contains(&type_of(given)) => None,
        (Shape::Of(types), _) => Some(format!(
            "`{at}` is one of {types:?}, not {}",
            type_of(given)
        )),
        (Shape::List(item), Value::Array(items)) => items
            .iter()
            .find_map(|one| shape_differs(item, one, &format!("{at}[]"))),
        (Shape::Map(value), Value::Object(all)) => all
            .iter()
            .find_map(|(name, one)| shape_differs(value, one, &format!("{at}.{name}"))),
        (Shape::Object(fields), Value::Object(all)) => object_differs(fields, all, at),
        (Shape::List(_), _) => Some(format!("`{at}` is an array, not {}", type_of(given))),
        (Shape::Map(_) | Shape::Object(_), _) => {
            Some(format!("`{at}` is an object, not {}", type_of(given)))
        }
    }
}

fn object_differs(fields: &[Field], given: &Map<String, Value>, at: &str) -> Option<String> {
    if let Some(field) = fields
        .iter()
        .find(|field| field.is_required && !given.contains_key(field.name))
    {
        return Some(format!("`{at}.{}` is missing", field.name));
    }
    given.iter().find_map(
        |(name, value)| match fields.iter().find(|field| field.name == name) {
            None => Some(format!("there is no property `{at}.{name}`")),
            Some(field) => shape_differs(&field.shape, value, &format!("{at}.{name}")),
        },
    )
}

/// Returns the type of a value in the witness log's form, which replaces scalars by their type
/// names.
fn type_of(shape: &Value) -> &str {
    match shape {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        other => other.as_str().unwrap_or("unknown"),
    }
}
