//! Contracts with the vendors: a table of facts about every request that the worker may send. Each request that a simulator has
//! witnessed, in any test's world, must be one of the table's; the table itself is held against the vendors' own descriptions.

mod described;
mod table;

use std::collections::BTreeMap;

use dispatch_worker::devkit::simulator::witness::Entry;
use reqwest::Url;
use serde_json::{Value, json};

use table::TABLE;

/// One request, as its vendor describes it.
struct Fact {
    name: &'static str,
    method: &'static str,
    /// The vendor's template, below the base path; `{name}` stands for one segment.
    path: &'static str,
    /// A segment of it that may be left out.
    optional: &'static str,
    /// Query parameters: those with a value must be there with it, the others may be there.
    query: &'static [(&'static str, Option<&'static str>)],
    body: Option<Body>,
    vendor: Vendor,
}

/// A body.
struct Body {
    media_type: &'static str,
    kind: Kind,
    fields: &'static [Field],
}

/// What kind of body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A JSON object.
    Object,
    /// A JSON array of objects.
    List,
    /// A form, whose fields the witness does not see.
    Form,
}

/// A property: its name, its types in JSON Schema's words, whether it must be there.
struct Field {
    name: &'static str,
    types: &'static [&'static str],
    required: bool,
}

/// Whose request it is.
struct Vendor {
    /// The description among the specifications, where there is one.
    file: Option<&'static str>,
    /// What stands before the template where it is sent to: the vendor's base path, and the simulator's own.
    below: &'static [&'static str],
}

/// The methods of HTTP that change or fetch something: mail is witnessed too, in words of its own.
const HTTP: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The requests that no row describes, and why the rows that are nearest do not.
pub(crate) fn breaches(witness: &[Entry]) -> Vec<String> {
    let is_http = |entry: &&Entry| HTTP.contains(&entry.method.as_str());
    witness.iter().filter(is_http).filter_map(|entry| breach(entry, TABLE)).collect()
}

fn breach(entry: &Entry, table: &[Fact]) -> Option<String> {
    let near: Vec<&Fact> = table.iter().filter(|fact| fact.method == entry.method && fact.is_at(&entry.path)).collect();
    let reasons: Vec<String> = near.iter().filter_map(|fact| Some(format!("{}: {}", fact.name, fact.differs(entry)?))).collect();
    if reasons.len() < near.len() {
        return None;
    }
    let query = entry.query.as_deref().unwrap_or_default();
    let why = if reasons.is_empty() { "no row has this method and path".to_owned() } else { reasons.join("; ") };
    Some(format!("{} {}?{query} is not in tests/it/contracts/table.rs: {why}", entry.method, entry.path))
}

impl Fact {
    fn is_at(&self, path: &str) -> bool {
        let without = self.path.replacen(&format!("/{}", self.optional), "", usize::from(!self.optional.is_empty()));
        let templates = [self.path, &without];
        let at = |template: &str, path: &str| {
            let (wanted, given) = (template.split('/'), path.split('/'));
            wanted.clone().count() == given.clone().count()
                && wanted.zip(given).all(|(wanted, given)| wanted == given || (wanted.starts_with('{') && !given.is_empty()))
        };
        self.vendor.below.iter().filter_map(|base| path.strip_prefix(base)).any(|path| templates.iter().any(|t| at(t, path)))
    }

    /// What is not as described.
    fn differs(&self, entry: &Entry) -> Option<String> {
        self.query_differs(entry.query.as_deref().unwrap_or_default()).or_else(|| match &self.body {
            Some(body) => body.differs(entry.content_type.as_deref(), entry.body_shape.as_ref()),
            None => entry.body_shape.as_ref().map(|shape| format!("there is no body, and {shape} was sent")),
        })
    }

    fn query_differs(&self, query: &str) -> Option<String> {
        let url = Url::parse(&format!("http://x/?{query}")).expect("a query that was sent");
        let given: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let unknown = given.keys().find(|name| !self.query.iter().any(|(known, _)| known == name));
        if let Some(name) = unknown {
            return Some(format!("there is no query parameter `{name}`"));
        }
        let missing = |(name, value): &&(&str, Option<&str>)| value.is_some() && given.get(*name).map(String::as_str) != *value;
        let (name, value) = self.query.iter().find(missing)?;
        Some(format!("the query wants {name}={}", value.unwrap_or_default()))
    }
}

impl Body {
    fn differs(&self, media_type: Option<&str>, shape: Option<&Value>) -> Option<String> {
        let essence = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
        if essence != self.media_type {
            return Some(format!("the media type is {}, not `{essence}`", self.media_type));
        }
        match (self.kind, shape) {
            (Kind::Form, None) => None,
            (Kind::List, Some(Value::Array(items))) if !items.is_empty() => items.iter().find_map(|it| self.object_differs(it)),
            (Kind::Object, Some(object @ Value::Object(_))) => self.object_differs(object),
            (_, None) => Some("the body is not JSON".to_owned()),
            (_, Some(other)) => Some(format!("the body is another kind of value: {other}")),
        }
    }

    fn object_differs(&self, shape: &Value) -> Option<String> {
        let Some(given) = shape.as_object() else { return Some(format!("{shape} is not an object")) };
        let missing = self.fields.iter().find(|field| field.required && !given.contains_key(field.name));
        if let Some(field) = missing {
            return Some(format!("`{}` is missing", field.name));
        }
        given.iter().find_map(|(name, shape)| match self.fields.iter().find(|field| field.name == name) {
            None => Some(format!("there is no property `{name}`")),
            Some(field) if !field.types.contains(&type_of(shape)) => {
                Some(format!("`{name}` is {:?}, not {}", field.types, type_of(shape)))
            }
            Some(_) => None,
        })
    }
}

/// Of a value as the witness keeps it: scalars by the names of their types.
fn type_of(shape: &Value) -> &str {
    match shape {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        other => other.as_str().unwrap_or("unknown"),
    }
}

#[test]
fn a_request_that_no_vendor_describes_is_told_and_a_right_one_is_not() {
    let patch = json!([{"op": "string", "path": "string", "value": "integer"}]);
    let message = json!({"content": "string", "nonce": "string", "allowed_mentions": {"parse": []}});
    let unkeyed = json!({"content": "string", "flags": "integer", "allowed_mentions": {"parse": []}});
    let batch = json!({"ids": ["integer"], "fields": ["string"], "errorPolicy": "string"});
    let loose = json!({"ids": "string", "fields": ["string"], "errorPolicy": "string"});
    let (json_patch, plain, version) = (Some("application/json-patch+json"), Some("application/json"), Some("api-version=7.1"));
    let work_item = "/contoso/_apis/wit/workitems/17";
    for (method, path, query, media, shape, right) in [
        ("PATCH", work_item, version, json_patch, &patch, None),
        ("PATCH", "/contoso/Web/_apis/wit/workitems/17", version, json_patch, &patch, None),
        ("PATCH", work_item, None, json_patch, &patch, Some("api-version=7.1")),
        ("PATCH", work_item, Some("api-version=7.0"), json_patch, &patch, Some("api-version=7.1")),
        ("PATCH", work_item, Some("api-version=7.1&dryRun=1"), json_patch, &patch, Some("dryRun")),
        ("PATCH", work_item, version, plain, &patch, Some("json-patch")),
        ("PATCH", work_item, version, json_patch, &json!([]), Some("kind of value")),
        ("PATCH", work_item, version, json_patch, &json!([{"op": "string"}]), Some("`path` is missing")),
        ("PUT", work_item, version, json_patch, &patch, Some("no row")),
        ("PATCH", "/a/b/c/_apis/wit/workitems/17", version, json_patch, &patch, Some("no row")),
        ("POST", "/contoso/_apis/wit/workitemsbatch", version, plain, &batch, None),
        ("POST", "/contoso/_apis/wit/workitemsbatch", version, plain, &json!({"ids": ["integer"]}), Some("`fields` is missing")),
        ("POST", "/contoso/_apis/wit/workitemsbatch", version, plain, &loose, Some("`ids` is")),
        ("GET", "/_apis/profile/profiles/me", version, None, &Value::Null, None),
        ("GET", "/_apis/profile/profiles/me", version, None, &patch, Some("no body")),
        ("POST", "/api/v10/channels/1/messages", None, plain, &message, None),
        ("POST", "/api/v9/channels/1/messages", None, plain, &message, Some("no row")),
        ("POST", "/api/v10/channels/1/messages", None, plain, &json!({"text": "string"}), Some("`content` is missing")),
        ("POST", "/api/chat.postMessage", None, plain, &json!({"channel": "string", "text": "string"}), None),
        ("POST", "/api/chat.postMessage", None, plain, &json!({"text": "string"}), Some("`channel` is missing")),
        ("POST", "/organizations/oauth2/v2.0/token", None, Some("application/x-www-form-urlencoded"), &Value::Null, None),
        ("POST", "/organizations/oauth2/v2.0/token", None, plain, &patch, Some("form")),
        ("POST", "/api/v10/webhooks/1/t", Some("wait=true"), plain, &unkeyed, None),
    ] {
        let entry: Entry = serde_json::from_value(json!({
            "seq": 1, "at": "2026-01-01T00:00:00Z", "provider": "webhook", "method": method, "path": path, "query": query,
            "content_type": media, "key": null, "body_sha256": "", "body_shape": shape, "status": 200, "effect": true,
            "subject": null, "fault": null, "detail": null
        }))
        .expect("an entry");
        let told = breach(&entry, TABLE);
        match (&told, right) {
            (None, None) => {}
            (Some(told), Some(part)) if told.contains(part) => {}
            _ => panic!("{method} {path} {query:?} {media:?} {shape}: {told:?}, right is {right:?}"),
        }
    }
}
