//! The requests that providers accept, as their vendors describe them. Tests compare every request
//! of the worker, and the vendors' own descriptions, with these rows.

/// A request as its vendor describes it.
#[derive(Debug, Clone, Copy)]
pub struct Fact {
    /// The name of the row.
    pub name: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The vendor's path template below the base path; `{name}` stands for one segment.
    pub path: &'static str,
    /// A segment of the path that may be left out.
    pub optional: &'static str,
    /// The parameters of the query. There are no others.
    pub query: &'static [(&'static str, Wanted)],
    /// The body, or `None` if there is none.
    pub body: Option<Body>,
    /// The vendor.
    pub vendor: Vendor,
}

/// The requirement on a query parameter.
#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    /// Required, with this value.
    Exactly(&'static str),
    /// Required, with any value.
    Something,
    /// Optional.
    Perhaps,
}

/// A required body.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// The media type, without parameters.
    pub media_type: &'static str,
    /// The shape of the JSON value, or the fields of the form.
    pub shape: Shape,
}

/// The vendor of a request.
#[derive(Debug, Clone, Copy)]
pub struct Vendor {
    /// The file of the vendor's own description, if there is one.
    pub file: Option<&'static str>,
    /// The vendor's host and base path; `None` if the receiver chooses its address.
    pub base: Option<&'static str>,
    /// The program's setting that has this base by default.
    pub setting: Option<&'static str>,
    /// The possible prefixes of the path as sent: the vendor's base path, and the simulator's own.
    pub below: &'static [&'static str],
}

impl Vendor {
    /// The vendor of a row whose receiver chooses its address.
    pub const ANYWHERE: Self = Self {
        file: None,
        base: None,
        setting: None,
        below: &[""],
    };
}

/// The expected shape of a JSON value, with the type names of JSON Schema.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A value of one of these types, with any content.
    Of(&'static [&'static str]),
    /// An array of values of this shape.
    List(&'static Shape),
    /// An object with these properties and no others.
    Object(&'static [Field]),
    /// An object with any property names and values of this shape.
    Map(&'static Shape),
}

impl Shape {
    /// A string.
    pub const STRING: Self = Self::Of(&["string"]);
    /// An integer.
    pub const INTEGER: Self = Self::Of(&["integer"]);
    /// A boolean.
    pub const BOOLEAN: Self = Self::Of(&["boolean"]);
    /// Any value.
    pub const ANYTHING: Self = Self::Of(&[
        "null", "boolean", "integer", "number", "string", "array", "object",
    ]);
}

/// A property of an object.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The name.
    pub name: &'static str,
    /// The shape of the value.
    pub shape: Shape,
    /// Whether it must be present.
    pub is_required: bool,
}

impl Field {
    /// Returns a required property.
    #[must_use]
    pub const fn must(name: &'static str, shape: Shape) -> Self {
        Self {
            name,
            shape,
            is_required: true,
        }
    }

    /// Returns an optional property.
    #[must_use]
    pub const fn may(name: &'static str, shape: Shape) -> Self {
        Self {
            name,
            shape,
            is_required: false,
        }
    }
}

impl Body {
    /// Returns a JSON object with these properties.
    #[must_use]
    pub const fn json(fields: &'static [Field]) -> Self {
        Self {
            media_type: "application/json",
            shape: Shape::Object(fields),
        }
    }
}
