//! Contracts with the vendors: a table of facts about every request that the worker may send. Each request that a simulator has
//! witnessed, in any test's world, must be one of the table's; the table itself is held against the vendors' own descriptions.

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

/// One request, as its vendor describes it.
#[derive(Clone, Copy)]
struct Fact {
    name: &'static str,
    method: &'static str,
    /// The vendor's template, below the base path; `{name}` stands for one segment.
    path: &'static str,
    /// A segment of it that may be left out.
    optional: &'static str,
    query: &'static [(&'static str, Wanted)],
    body: Option<Body>,
    vendor: Vendor,
}

/// A query parameter's value.
#[derive(Clone, Copy)]
enum Wanted {
    /// It must be there, and be this.
    Exactly(&'static str),
    /// It must be there.
    Something,
    /// It may be there.
    Perhaps,
}

/// A body, where there must be one.
#[derive(Clone, Copy)]
struct Body {
    media_type: &'static str,
    shape: Shape,
}

/// Whose request it is.
#[derive(Clone, Copy)]
struct Vendor {
    /// The description among the specifications, where there is one.
    file: Option<&'static str>,
    /// Where the vendor serves it, host and base path; nothing where its address is its owner's.
    base: Option<&'static str>,
    /// The program's setting that has this base by default.
    setting: Option<&'static str>,
    /// What stands before the template where it is sent to: the vendor's base path, and the simulator's own.
    below: &'static [&'static str],
}

/// The requests that no row describes, and why the rows that are nearest do not. Mail is witnessed too, in words of its own.
pub(crate) fn breaches(witness: &[Entry]) -> Vec<String> {
    witness.iter().filter(|entry| entry.provider != Provider::Email).filter_map(|entry| breach(entry, TABLE)).collect()
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
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in url.query_pairs().into_owned() {
            if !self.query.iter().any(|(known, _)| *known == name) {
                return Some(format!("there is no query parameter `{name}`"));
            }
            if given.insert(name.clone(), value).is_some() {
                return Some(format!("the query has `{name}` twice"));
            }
        }
        self.query.iter().find_map(|(name, wanted)| match (wanted, given.get(*name)) {
            (Wanted::Exactly(value), given) if given.map(String::as_str) != Some(value) => {
                Some(format!("the query wants {name}={value}"))
            }
            (Wanted::Something, None) => Some(format!("the query wants `{name}`")),
            (Wanted::Exactly(_) | Wanted::Something | Wanted::Perhaps, _) => None,
        })
    }
}

impl Body {
    fn differs(&self, media_type: Option<&str>, shape: Option<&Value>) -> Option<String> {
        let essence = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
        if essence != self.media_type {
            return Some(format!("the media type is {}, not `{essence}`", self.media_type));
        }
        match shape {
            None => Some("the body is not JSON".to_owned()),
            Some(Value::Array(items)) if items.is_empty() => Some("the body is empty".to_owned()),
            Some(shape) => self.shape.differs(shape, "body"),
        }
    }
}
