//! Contracts with the vendors: a table of every request that the worker may send. Each request in
//! the witness log of any test's world must match a row of the table, and the table itself is
//! compared with the vendors' own descriptions.

mod described;
mod description;
mod hosts;
mod planted;
mod shape;
mod table;

use std::collections::BTreeMap;

use dispatch_worker::devkit::simulator::witness::{Entry, Provider};
use dispatch_worker::providers::contract::{Body, Fact, Wanted};
use reqwest::Url;
use serde_json::Value;

use shape::shape_differs;
use table::table;

/// Returns the requests that match no row, with the differences from the nearest rows. Mail
/// entries of the log are skipped.
pub(crate) fn breaches(witness: &[Entry]) -> Vec<String> {
    witness
        .iter()
        .filter(|entry| entry.provider != Provider::Email)
        .filter_map(breach)
        .collect()
}

fn breach(entry: &Entry) -> Option<String> {
    let near: Vec<&Fact> = table()
        .filter(|fact| fact.method == entry.method && is_at(fact, &entry.path))
        .collect();
    let reasons: Vec<String> = near
        .iter()
        .filter_map(|fact| Some(format!("{}: {}", fact.name, differs(fact, entry)?)))
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
        "{} {}?{query} is in no row of tests/it/providers/contracts/table.rs and of the channels: {why}",
        entry.method, entry.path
    ))
}

fn is_at(fact: &Fact, path: &str) -> bool {
    let without = fact.path.replacen(
        &format!("/{}", fact.optional),
        "",
        usize::from(!fact.optional.is_empty()),
    );
    let templates = [fact.path, &without];
    let at = |template: &str, path: &str| {
        let (wanted, given) = (template.split('/'), path.split('/'));
        wanted.clone().count() == given.clone().count()
            && wanted.zip(given).all(|(wanted, given)| {
                wanted == given || (wanted.starts_with('{') && !given.is_empty())
            })
    };
    fact.vendor
        .below
        .iter()
        .filter_map(|base| path.strip_prefix(base))
        .any(|path| templates.iter().any(|t| at(t, path)))
}

/// Returns the first difference from the description.
fn differs(fact: &Fact, entry: &Entry) -> Option<String> {
    query_differs(fact, entry.query.as_deref().unwrap_or_default()).or_else(|| match &fact.body {
        Some(body) => body_differs(
            body,
            entry.content_type.as_deref(),
            entry.body_shape.as_ref(),
        ),
        None => entry
            .body_shape
            .as_ref()
            .map(|shape| format!("there is no body, and {shape} was sent")),
    })
}

fn query_differs(fact: &Fact, query: &str) -> Option<String> {
    let url = Url::parse(&format!("http://x/?{query}")).expect("a query that was sent");
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in url.query_pairs().into_owned() {
        if !fact.query.iter().any(|(known, _)| *known == name) {
            return Some(format!("there is no query parameter `{name}`"));
        }
        if given.insert(name.clone(), value).is_some() {
            return Some(format!("the query has `{name}` twice"));
        }
    }
    fact.query
        .iter()
        .find_map(|(name, wanted)| match (wanted, given.get(*name)) {
            (Wanted::Exactly(value), given) if given.map(String::as_str) != Some(value) => {
                Some(format!("the query requires {name}={value}"))
            }
            (Wanted::Something, None) => Some(format!("the query requires `{name}`")),
            (Wanted::Exactly(_) | Wanted::Something | Wanted::Perhaps, _) => None,
        })
}

fn body_differs(body: &Body, media_type: Option<&str>, shape: Option<&Value>) -> Option<String> {
    let essence = media_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    if essence != body.media_type {
        return Some(format!(
            "the media type is {}, not `{essence}`",
            body.media_type
        ));
    }
    match shape {
        None => Some("the body is not JSON".to_owned()),
        Some(Value::Array(items)) if items.is_empty() => Some("the body is empty".to_owned()),
        Some(shape) => shape_differs(&body.shape, shape, "body"),
    }
}
