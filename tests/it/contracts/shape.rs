//! What a value may be: JSON Schema's words for types, as deep as a row says.

use serde_json::{Map, Value};

/// What a value may be.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Of one of these types, whatever is in it.
    Of(&'static [&'static str]),
    /// An array of such values.
    List(&'static Shape),
    /// An object with these properties and no other.
    Object(&'static [Field]),
    /// An object whose properties are such values, whatever their names.
    Map(&'static Shape),
}

/// A property: its name, what it may be, whether it must be there.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) is_required: bool,
}

impl Shape {
    /// What of a value, as the witness keeps it, is not so; it stands at this place in the body.
    pub(super) fn differs(&self, given: &Value, at: &str) -> Option<String> {
        match (self, given) {
            (Self::Of(types), _) if types.contains(&type_of(given)) => None,
            (Self::Of(types), _) => Some(format!("`{at}` is one of {types:?}, not {}", type_of(given))),
            (Self::List(item), Value::Array(items)) => items.iter().find_map(|one| item.differs(one, &format!("{at}[]"))),
            (Self::Map(value), Value::Object(all)) => {
                all.iter().find_map(|(name, one)| value.differs(one, &format!("{at}.{name}")))
            }
            (Self::Object(fields), Value::Object(all)) => object_differs(fields, all, at),
            (Self::List(_), _) => Some(format!("`{at}` is an array, not {}", type_of(given))),
            (Self::Map(_) | Self::Object(_), _) => Some(format!("`{at}` is an object, not {}", type_of(given))),
        }
    }
}

fn object_differs(fields: &[Field], given: &Map<String, Value>, at: &str) -> Option<String> {
    if let Some(field) = fields.iter().find(|field| field.is_required && !given.contains_key(field.name)) {
        return Some(format!("`{at}.{}` is missing", field.name));
    }
    given.iter().find_map(|(name, value)| match fields.iter().find(|field| field.name == name) {
        None => Some(format!("there is no property `{at}.{name}`")),
        Some(field) => field.shape.differs(value, &format!("{at}.{name}")),
    })
}

/// Of a value as the witness keeps it: scalars by the names of their types.
fn type_of(shape: &Value) -> &str {
    match shape {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        other => other.as_str().unwrap_or("unknown"),
    }
}
