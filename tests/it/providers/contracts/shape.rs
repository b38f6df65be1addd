//! Shapes of JSON values, with the type names of JSON Schema.

use serde_json::{Map, Value};

/// The expected shape of a value.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// A value of one of these types, with any content.
    Of(&'static [&'static str]),
    /// An array of values of this shape.
    List(&'static Shape),
    /// An object with these properties and no others.
    Object(&'static [Field]),
    /// An object with any property names and values of this shape.
    Map(&'static Shape),
}

/// A property of an object.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) is_required: bool,
}

impl Shape {
    /// Returns the first difference of a value in the witness log's form; `at` is its place in the
    /// body.
    pub(super) fn differs(&self, given: &Value, at: &str) -> Option<String> {
        match (self, given) {
            (Self::Of(types), _) if types.contains(&type_of(given)) => None,
            (Self::Of(types), _) => Some(format!(
                "`{at}` is one of {types:?}, not {}",
                type_of(given)
            )),
            (Self::List(item), Value::Array(items)) => items
                .iter()
                .find_map(|one| item.differs(one, &format!("{at}[]"))),
            (Self::Map(value), Value::Object(all)) => all
                .iter()
                .find_map(|(name, one)| value.differs(one, &format!("{at}.{name}"))),
            (Self::Object(fields), Value::Object(all)) => object_differs(fields, all, at),
            (Self::List(_), _) => Some(format!("`{at}` is an array, not {}", type_of(given))),
            (Self::Map(_) | Self::Object(_), _) => {
                Some(format!("`{at}` is an object, not {}", type_of(given)))
            }
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
            Some(field) => field.shape.differs(value, &format!("{at}.{name}")),
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
