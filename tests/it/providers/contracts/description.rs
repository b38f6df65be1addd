//! A vendor's description of its API, Swagger 2.0 or OpenAPI 3.1, and how a row of the table
//! differs from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dispatch_worker::providers::contract::{Body, Fact, Field, Shape, Wanted};
use serde_json::Value;

/// A vendor's description.
pub(super) struct Description(Value);

impl Description {
    pub(super) fn read(folder: &Path, file: &str) -> Self {
        let text = std::fs::read_to_string(folder.join(file))
            .unwrap_or_else(|error| panic!("{file}: {error}"));
        Self(serde_json::from_str(&text).expect("a description is JSON"))
    }

    /// Returns the differences of a row from the description.
    pub(super) fn differs(&self, fact: &Fact) -> Vec<String> {
        let Some(path) = self.0["paths"].get(fact.path) else {
            return vec!["there is no such path".to_owned()];
        };
        let Some(operation) = path.get(fact.method.to_lowercase()) else {
            return vec!["there is no such method".to_owned()];
        };
        let lists = [&path["parameters"], &operation["parameters"]];
        let parameters: Vec<&Value> = lists
            .iter()
            .filter_map(|list| list.as_array())
            .flatten()
            .map(|one| self.resolved(one))
            .collect();
        let mut wrong = query_differs(fact, &parameters);
        let base = self.base();
        if fact.vendor.base != Some(&base) {
            wrong.push(format!("it is served at {base}"));
        }
        let may_be_left_out = |one: &&Value| {
            one["x-ms-required"] == false && fact.optional == format!("{{{}}}", text(&one["name"]))
        };
        if !fact.optional.is_empty() && !parameters.iter().any(may_be_left_out) {
            wrong.push(format!("{} cannot be left out", fact.optional));
        }
        match (&fact.body, self.body(operation, &parameters)) {
            (Some(Body { media_type, shape }), Some(schemas)) => match schemas.get(*media_type) {
                Some(schema) => wrong.extend(self.shape_differs(shape, schema, "body")),
                None => wrong.push(format!("the media type is one of {:?}", schemas.keys())),
            },
            (None, None) => {}
            (Some(_), None) => wrong.push("there is no body".to_owned()),
            (None, Some(_)) => wrong.push("there is a body".to_owned()),
        }
        wrong
    }

    /// Returns scheme, host and base path.
    fn base(&self) -> String {
        if let Some(url) = self.0["servers"][0]["url"].as_str() {
            return url.to_owned();
        }
        let [scheme, host, path] =
            [&self.0["schemes"][0], &self.0["host"], &self.0["basePath"]].map(text);
        format!("{scheme}://{host}{path}")
            .trim_end_matches('/')
            .to_owned()
    }

    /// Returns the schemas of the body by media type.
    fn body(&self, operation: &Value, parameters: &[&Value]) -> Option<BTreeMap<String, Value>> {
        if let Some(content) = operation["requestBody"]["content"].as_object() {
            return Some(
                content
                    .iter()
                    .map(|(media, one)| (media.clone(), one["schema"].clone()))
                    .collect(),
            );
        }
        let place = |name: &str| {
            parameters
                .iter()
                .filter(|one| one["in"] == name)
                .copied()
                .collect::<Vec<_>>()
        };
        let schema = match (place("body").first(), place("formData")) {
            (Some(body), _) => body["schema"].clone(),
            (None, form) if form.is_empty() => return None,
            // Form parameters, which may also be sent as JSON.
            (None, form) => {
                let properties: Value = form
                    .iter()
                    .map(|one| (text(&one["name"]).to_owned(), (*one).clone()))
                    .collect();
                let required: Value = form
                    .iter()
                    .filter(|one| one["required"] == true)
                    .map(|one| one["name"].clone())
                    .collect();
                Value::from_iter([
                    ("properties".to_owned(), properties),
                    ("required".to_owned(), required),
                ])
            }
        };
        let media = operation["consumes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        Some(
            media
                .map(|media| (media.to_owned(), schema.clone()))
                .collect(),
        )
    }

    /// Returns the differences of a shape from the schema at this place in the body.
    fn shape_differs(&self, shape: &Shape, schema: &Value, at: &str) -> Vec<String> {
        let described = self.types(schema);
        let wanted: &[&str] = match shape {
            Shape::Of(types) => types,
            Shape::List(_) => &["array"],
            Shape::Object(_) | Shape::Map(_) => &["object"],
        };
        if let Some(wrong) = wanted
            .iter()
            .find(|name| !described.contains(**name) && !self.is_anything(schema))
        {
            return vec![format!("`{at}` is no {wrong}, but one of {described:?}")];
        }
        match shape {
            Shape::Of(_) => Vec::new(),
            Shape::List(item) => self.inside_differs(item, schema, "items", &format!("{at}[]")),
            Shape::Map(value) => {
                self.inside_differs(value, schema, "additionalProperties", &format!("{at}{{}}"))
            }
            Shape::Object(fields) => self.object_differs(fields, schema, at),
        }
    }

    fn inside_differs(&self, shape: &Shape, schema: &Value, inside: &str, at: &str) -> Vec<String> {
        let described = self
            .all(schema)
            .into_iter()
            .filter_map(|part| part.get(inside));
        let differences = described
            .map(|one| self.shape_differs(shape, one, at))
            .min_by_key(Vec::len);
        differences.unwrap_or_else(|| vec![format!("`{at}` is not described")])
    }

    fn object_differs(&self, fields: &[Field], schema: &Value, at: &str) -> Vec<String> {
        let parts = self.all(schema);
        let properties: BTreeMap<&str, &Value> = parts
            .iter()
            .filter_map(|part| part["properties"].as_object())
            .flatten()
            .map(|(name, one)| (name.as_str(), one))
            .collect();
        let required = parts
            .iter()
            .filter_map(|part| part["required"].as_array())
            .flatten()
            .map(text);
        let missing = required.filter(|name| {
            !fields
                .iter()
                .any(|field| field.name == *name && field.is_required)
        });
        let mut wrong: Vec<String> = missing
            .map(|name| format!("`{at}.{name}` must be there"))
            .collect();
        for field in fields {
            let at = format!("{at}.{}", field.name);
            match properties.get(field.name) {
                Some(described) => wrong.extend(self.shape_differs(&field.shape, described, &at)),
                None => wrong.push(format!("`{at}` is not one of {:?}", properties.keys())),
            }
        }
        wrong
    }

    /// Returns the types that a schema allows.
    fn types<'d>(&'d self, schema: &'d Value) -> BTreeSet<&'d str> {
        let said = |part: &'d Value| match &part["type"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ if part.get("enum").is_some() => vec!["string"],
            _ if part.get("properties").is_some() => vec!["object"],
            _ => Vec::new(),
        };
        self.all(schema).into_iter().flat_map(said).collect()
    }

    /// Returns whether a schema stands for any value: some descriptions, such as that of JSON
    /// Patch, only state `object` then.
    fn is_anything(&self, schema: &Value) -> bool {
        let parts = self.all(schema);
        let says_more = |part: &&Value| {
            part.get("properties").is_some() || part.get("additionalProperties").is_some()
        };
        parts.len() == 1 && parts[0]["type"] == "object" && !parts.iter().any(says_more)
    }

    /// Returns a schema and all schemas that it is composed of.
    fn all<'d>(&'d self, schema: &'d Value) -> Vec<&'d Value> {
        let schema = self.resolved(schema);
        let parts = ["allOf", "anyOf", "oneOf"]
            .into_iter()
            .filter_map(|name| schema[name].as_array())
            .flatten();
        std::iter::once(schema)
            .chain(parts.flat_map(|part| self.all(part)))
            .collect()
    }

    fn resolved<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix('#'))
        {
            Some(pointer) => self.resolved(
                self.0
                    .pointer(pointer)
                    .expect("references resolve within the description"),
            ),
            None => value,
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn query_differs(fact: &Fact, parameters: &[&Value]) -> Vec<String> {
    let described: BTreeMap<&str, &Value> = parameters
        .iter()
        .filter(|one| one["in"] == "query")
        .map(|one| (text(&one["name"]), *one))
        .collect();
    let mut wrong = Vec::new();
    for (name, wanted) in fact.query {
        match (described.get(name), wanted) {
            (None, _) => wrong.push(format!("there is no query parameter `{name}`")),
            // "… This should be set to '7.1' to use this version of the api."
            (Some(one), Wanted::Exactly(value)) if *name == "api-version" => {
                let said = text(&one["description"]);
                if !said.contains(&format!("'{value}'")) {
                    wrong.push(format!("{name}: {said}"));
                }
            }
            (Some(_), _) => {}
        }
    }
    let is_sent = |name: &str| {
        fact.query
            .iter()
            .any(|(given, wanted)| *given == name && !matches!(wanted, Wanted::Perhaps))
    };
    let required = described
        .iter()
        .filter(|(_, one)| one["required"] == true)
        .map(|(name, _)| *name);
    wrong.extend(
        required
            .filter(|name| !is_sent(name))
            .map(|name| format!("the query parameter `{name}` is required")),
    );
    wrong
}
