//! The table against the vendors' descriptions: Swagger 2.0 and OpenAPI 3.1, as they are published. A clone of the repository
//! alone does not have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::table::TABLE;
use super::{Body, Fact, Kind};

/// The descriptions, beside the crate or beside the folder of its worktrees.
fn specifications() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["..", "../..", "../../.."].iter().map(|up| root.join(up).join("shared/specs")).find(|folder| folder.is_dir())
}

#[test]
fn every_row_is_what_its_vendor_describes() {
    let Some(folder) = specifications() else { return };
    let mut wrong = Vec::new();
    for fact in TABLE {
        let Some(file) = fact.vendor.file else { continue };
        let text = std::fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let description = Description(serde_json::from_str(&text).expect("a description is JSON"));
        wrong.extend(description.differs(fact).into_iter().map(|why| format!("{} ({file}): {why}", fact.name)));
    }
    assert!(wrong.is_empty(), "rows that the vendor does not describe so:\n{}", wrong.join("\n"));
}

#[test]
fn a_row_that_is_not_described_is_told() {
    let Some(folder) = specifications() else { return };
    let text = std::fs::read_to_string(folder.join("azure-devops-7.1/work-item-tracking.json")).unwrap();
    let description = Description(serde_json::from_str(&text).unwrap());
    let row = || TABLE.iter().find(|fact| fact.name == "work items").expect("a row");
    let body = row().body.as_ref().expect("a body");
    let with = |method, path, query, media_type, fields| {
        let body = Some(Body { media_type, kind: Kind::Object, fields });
        description.differs(&Fact { name: "", method, path, query, body, optional: "", vendor: super::table::no_vendor() })
    };
    let Fact { method, path, query, .. } = *row();
    assert_eq!(with(method, path, query, body.media_type, body.fields), Vec::<String>::new());
    const UNKNOWN: &[super::Field] = &[super::Field { name: "nobody", types: &["string"], required: false }];
    const OTHER_TYPE: &[super::Field] = &[super::Field { name: "ids", types: &["string"], required: false }];
    for (part, told) in [
        ("no such path", with(method, "/nowhere", query, body.media_type, body.fields)),
        ("no such method", with("DELETE", path, query, body.media_type, body.fields)),
        ("api-version", with(method, path, &[], body.media_type, body.fields)),
        ("7.1", with(method, path, &[("api-version", Some("7.0"))], body.media_type, body.fields)),
        ("dryRun", with(method, path, &[("api-version", Some("7.1")), ("dryRun", None)], body.media_type, body.fields)),
        ("media type", with(method, path, query, "text/plain", body.fields)),
        ("nobody", with(method, path, query, body.media_type, UNKNOWN)),
        ("ids", with(method, path, query, body.media_type, OTHER_TYPE)),
    ] {
        assert!(told.iter().any(|why| why.contains(part)), "{part}: {told:?}");
    }
}

/// A vendor's description.
struct Description(Value);

impl Description {
    /// What of a row is not described so.
    fn differs(&self, fact: &Fact) -> Vec<String> {
        let Some(path) = self.0["paths"].get(fact.path) else { return vec!["there is no such path".to_owned()] };
        let Some(operation) = path.get(fact.method.to_lowercase()) else { return vec!["there is no such method".to_owned()] };
        let lists = [&path["parameters"], &operation["parameters"]];
        let parameters: Vec<&Value> =
            lists.iter().filter_map(|list| list.as_array()).flatten().map(|one| self.resolved(one)).collect();
        let mut wrong = query_differs(fact, &parameters);
        match (&fact.body, self.body(operation, &parameters)) {
            (Some(body), Some(schemas)) => wrong.extend(self.body_differs(body, &schemas)),
            (None, None) => {}
            (Some(_), None) => wrong.push("there is no body".to_owned()),
            (None, Some(_)) => wrong.push("there is a body".to_owned()),
        }
        wrong
    }

    /// The schemas of a body by media type.
    fn body(&self, operation: &Value, parameters: &[&Value]) -> Option<BTreeMap<String, Value>> {
        if let Some(content) = operation["requestBody"]["content"].as_object() {
            return Some(content.iter().map(|(media, one)| (media.clone(), one["schema"].clone())).collect());
        }
        let place = |name: &str| parameters.iter().filter(|one| one["in"] == name).copied().collect::<Vec<_>>();
        let schema = match (place("body").first(), place("formData")) {
            (Some(body), _) => body["schema"].clone(),
            (None, form) if form.is_empty() => return None,
            // The same properties may be sent as JSON.
            (None, form) => {
                let property = |one: &&Value| Some((one["name"].as_str()?.to_owned(), (*one).clone()));
                Value::from_iter([("properties".to_owned(), form.iter().filter_map(property).collect::<Value>())])
            }
        };
        let media = operation["consumes"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Some(media.map(|media| (media.to_owned(), schema.clone())).collect())
    }

    fn body_differs(&self, body: &Body, schemas: &BTreeMap<String, Value>) -> Vec<String> {
        let Some(schema) = schemas.get(body.media_type) else {
            return vec![format!("the media type is one of {:?}", schemas.keys())];
        };
        let mut properties = BTreeMap::new();
        self.properties(schema, &mut properties);
        let mut wrong = Vec::new();
        for field in body.fields {
            let Some(described) = properties.get(field.name) else {
                wrong.push(format!("there is no property `{}`, but {:?}", field.name, properties.keys()));
                continue;
            };
            let types = self.types(described);
            // A description of "any value" says `object`, as JSON Patch's does.
            let fits = |name: &&str| types.contains(*name) || (body.kind == Kind::List && types.contains("object"));
            if !field.types.iter().all(fits) {
                wrong.push(format!("`{}` is one of {types:?}", field.name));
            }
        }
        wrong
    }

    /// The properties of an object, whatever it is put together from; of a list, those of its items.
    fn properties<'d>(&'d self, schema: &'d Value, found: &mut BTreeMap<&'d str, &'d Value>) {
        let schema = self.resolved(schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            found.insert(name, property);
        }
        for part in parts(schema).chain(schema.get("items")) {
            self.properties(part, found);
        }
    }

    /// The types that a value may have.
    fn types<'d>(&'d self, schema: &'d Value) -> BTreeSet<&'d str> {
        let schema = self.resolved(schema);
        let said: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ if schema.get("enum").is_some() => vec!["string"],
            _ if schema.get("properties").is_some() => vec!["object"],
            _ => Vec::new(),
        };
        said.into_iter().chain(parts(schema).flat_map(|part| self.types(part))).collect()
    }

    fn resolved<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#')) {
            Some(pointer) => self.resolved(self.0.pointer(pointer).expect("a description refers to what it has")),
            None => value,
        }
    }
}

/// What a schema is put together from.
fn parts(schema: &Value) -> impl Iterator<Item = &Value> {
    ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|name| schema[name].as_array()).flatten()
}

fn query_differs(fact: &Fact, parameters: &[&Value]) -> Vec<String> {
    let described: BTreeMap<&str, &Value> =
        parameters.iter().filter(|one| one["in"] == "query").filter_map(|one| Some((one["name"].as_str()?, *one))).collect();
    let mut wrong = Vec::new();
    for (name, value) in fact.query {
        match described.get(name) {
            None => wrong.push(format!("there is no query parameter `{name}`")),
            // "… This should be set to '7.1' to use this version of the api."
            Some(one) if *name == "api-version" => {
                let said = one["description"].as_str().unwrap_or_default();
                if !said.contains(&format!("'{}'", value.unwrap_or_default())) {
                    wrong.push(format!("{name}: {said}"));
                }
            }
            Some(_) => {}
        }
    }
    let required = described.iter().filter(|(_, one)| one["required"] == true).map(|(name, _)| *name);
    let missing = required.filter(|name| !fact.query.iter().any(|(given, value)| given == name && value.is_some()));
    wrong.extend(missing.map(|name| format!("the query parameter `{name}` is required")));
    wrong
}
