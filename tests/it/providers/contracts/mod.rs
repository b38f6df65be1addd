//! Contracts with the vendors: a table of every request that the worker may send. Each request in
//! the witness log of any test's world must match a row of the table, and the table itself is
//! compared with the vendors' own descriptions.

mod described;
mod hosts;
mod planted;
mod shape;
mod table;

use std::collections::BTreeMap;

use dispatch_worker::devkit::simulator::witness::{Entry, Provider};
use reqwest::Url;
use serde_json::Value;

use shape::Shape;
use table::TABLE;

/// A request as its vendor describes it.
#[derive(Clone, Copy)]
struct Fact {
    name: &'static str,
    method: &'static str,
    /// The vendor's path template below the base path; `{name}` stands for one segment.
    path: &'static str,
    /// A segment of the path that may be left out.
    optional: &'static str,
    query: &'static [(&'static str, Wanted)],
    body: Option<Body>,
    vendor: Vendor,
}

/// The requirement on a query parameter.
#[derive(Clone, Copy)]
enum Wanted {
    /// Required, with this value.
    Exactly(&'static str),
    /// Required, with any value.
    Something,
    /// Optional.
    Perhaps,
}

/// A required body.
#[derive(Clone, Copy)]
struct Body {
    media_type: &'static str,
    shape: Shape,
}

/// The vendor of a request.
#[derive(Clone, Copy)]
struct Vendor {
    /// The file of the description, if there is one.
    file: Option<&'static str>,
    /// The vendor's host and base path; `None` if the receiver chooses its address.
    base: Option<&'static str>,
    /// The program's setting that has this base by default.
    setting: Option<&'static str>,
    /// The possible prefixes of the path as sent: the vendor's base path, and the simulator's own.
    below: &'static [&'static str],
}

/// Returns the requests that match no row, with the differences from the nearest rows. Mail
/// entries of the log are skipped.
pub(crate) fn breaches(witness: &[Entry]) -> Vec<String> {
    witness
        .iter()
        .filter(|entry| entry.provider != Provider::Email)
        .filter_map(|entry| breach(entry, TABLE))
        .collect()
}

fn breach(entry: &Entry, table: &[Fact]) -> Option<String> {
    let near: Vec<&Fact> = table
        .iter()
        .filter(|fact| fact.method == entry.method && fact.is_at(&entry.path))
        .collect();
    let reasons: Vec<String> = near
        .iter()
        .filter_map(|fact| Some(format!("{}: {}", fact.name, fact.differs(entry)?)))
        .collect();
    if reasons.len() < near.len() {
        return None;
    }
    let query = entry.query.as_deref().unwrap_or_default();
    let why = if reasons.is_empty() {
        "no row has this method and path".to_owned()
    } else {
        reasons.join("; ")
    };
    Some(format!(
        "{} {}?{query} is not in tests/it/providers/contracts/table.rs: {why}",
        entry.method, entry.path
    ))
}

impl Fact {
    fn is_at(&self, path: &str) -> bool {
        let without = self.path.replacen(
            &format!("/{}", self.optional),
            "",
            usize::from(!self.optional.is_empty()),
        );
        let templates = [self.path, &without];
        let at = |template: &str, path: &str| {
            let (wanted, given) = (template.split('/'), path.split('/'));
            wanted.clone().count() == given.clone().count()
                && wanted.zip(given).all(|(wanted, given)| {
                    wanted == given || (wanted.starts_with('{') && !given.is_empty())
                })
        };
        self.vendor
            .below
            .iter()
            .filter_map(|base| path.strip_prefix(base))
            .any(|path| templates.iter().any(|t| at(t, path)))
    }

    /// Returns the first difference from the description.
    fn differs(&self, entry: &Entry) -> Option<String> {
        self.query_differs(entry.query.as_deref().unwrap_or_default())
            .or_else(|| match &self.body {
                Some(body) => {
                    body.differs(entry.content_type.as_deref(), entry.body_shape.as_ref())
                }
                None => entry
                    .body_shape
                    .as_ref()
                    .map(|shape| format!("there is no body, and {shape} was sent")),
            })
    }

    fn query_differs(&self, query: &str) -> Option<String> {
        let url = Url::parse(&format!("http://x/?{query}")).expect("a query that was sent");
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in url.query_pairs().into_owned() {
            if !self.query.iter().any(|(known, _)| *known == name) {
                return Some(format!("there is no query parameter `{name}`"));
            }
            if given.insert(name.clone(), value).is_some() {
                return Some(format!("the query has `{name}` twice"));
            }
        }
        self.query
            .iter()
            .find_map(|(name, wanted)| match (wanted, given.get(*name)) {
                (Wanted::Exactly(value), given) if given.map(String::as_str) != Some(value) => {
                    Some(format!("the query requires {name}={value}"))
                }
                (Wanted::Something, None) => Some(format!("the query requires `{name}`")),
                (Wanted::Exactly(_) | Wanted::Something | Wanted::Perhaps, _) => None,
            })
    }
}

impl Body {
    fn differs(&self, media_type: Option<&str>, shape: Option<&Value>) -> Option<String> {
        let essence = media_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default();
        if essence != self.media_type {
            return Some(format!(
                "the media type is {}, not `{essence}`",
                self.media_type
            ));
        }
        match shape {
            None => Some("the body is not JSON".to_owned()),
            Some(Value::Array(items)) if items.is_empty() => Some("the body is empty".to_owned()),
            Some(shape) => self.shape.differs(shape, "body"),
        }
    }
}
