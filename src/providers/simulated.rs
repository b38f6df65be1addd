//! The simulation of providers: requests and answers as plain data, so that every provider is a
//! function from one to the other. The server around them is part of the devkit.

use std::borrow::Cow;
use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::channel::CHANNELS;
use super::kind::ChannelKind;

/// The text that replaces a secret in the witness log.
const HIDDEN: &str = "***";

/// The simulation of a channel, whose requests have the channel's kind as the first part of their
/// path.
#[derive(Debug, Clone, Copy)]
pub struct SimulatedChannel {
    /// The name of the room that tests send to.
    pub room: &'static str,
    /// Returns the public settings and the secret of a destination for that room, by the
    /// simulator's address and the secret of the room.
    pub destination: fn(&str, &str) -> (Value, String),
    /// The path of its API, or empty if the channel has no setting for the API's address.
    pub api: &'static str,
    /// The parameters of the query that the witness log does not show.
    pub secrets_in_query: &'static [&'static str],
    /// Whether the requests carry the key of their effect.
    pub is_keyed: bool,
    /// Returns the key and subject of a request.
    pub describe: fn(&ReceivedCall) -> Description,
    /// Answers a request that arrives at this time, later than every earlier one.
    pub answer: fn(&mut Rooms, &ReceivedCall, OffsetDateTime) -> SimulatedAnswer,
}

/// The simulated rooms of one kind of channel, by name. One that is not here does not exist.
pub type Rooms = BTreeMap<String, Room>;

/// A room that receives messages: a channel, a space, or a webhook. There is no `Debug`, because it
/// contains a secret.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// The token or signature that requests must have.
    pub secret: String,
    /// Bodies of received messages, oldest first.
    #[serde(default)]
    pub received: Vec<Value>,
}

/// Returns the channel whose simulation has this name, that is, the channel's kind.
#[must_use]
pub fn simulated(name: &str) -> Option<(&'static ChannelKind, &'static SimulatedChannel)> {
    let kind = CHANNELS.iter().find(|kind| kind.name() == name)?;
    Some((kind, kind.simulated.as_ref()?))
}

/// A completely received request.
pub struct ReceivedCall {
    pub(crate) method: Method,
    /// The path as sent, percent-encoded.
    pub(crate) path: String,
    /// The query as sent.
    pub(crate) raw_query: Option<String>,
    /// The decoded query. For a repeated name, the last value.
    pub(crate) query: BTreeMap<String, String>,
    /// The decoded parts of the path.
    pub(crate) segments: Vec<String>,
    headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl ReceivedCall {
    pub(crate) fn new(
        method: Method,
        path: &str,
        query: Option<&str>,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Self {
        let (path, raw_query) = (path.to_owned(), query.map(str::to_owned));
        let query = form(raw_query.as_deref().unwrap_or_default());
        let segments = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(percent_decoded)
            .collect();
        Self {
            method,
            path,
            raw_query,
            query,
            segments,
            headers,
            body,
        }
    }

    /// Returns a header's value, if it is present and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Returns the `Content-Type` without its parameters, in lowercase; empty if there is none.
    pub(crate) fn media_type(&self) -> String {
        let value = self.header("content-type").unwrap_or_default();
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    }

    /// Parses the body as JSON. The error states where it is wrong.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body).map_err(|error| error.to_string())
    }

    /// Parses the body as `application/x-www-form-urlencoded`. For a repeated name, the last
    /// value.
    pub(crate) fn form(&self) -> BTreeMap<String, String> {
        form(&String::from_utf8_lossy(&self.body))
    }

    /// Returns the bearer token in the `Authorization` header.
    pub(crate) fn bearer(&self) -> Option<&str> {
        self.header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
    }

    /// Returns the path's parts, for matching.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// Returns the path for the witness log, without the token of a webhook or an interaction.
    pub(crate) fn told_path(&self) -> String {
        let parts: Vec<&str> = self.path.split('/').collect();
        let token = match parts[..] {
            ["", "api", "v10", "webhooks", _, _, ..] => 5,
            ["", "api", "webhooks", _, _, ..] => 4,
            _ => return self.path.clone(),
        };
        parts
            .iter()
            .enumerate()
            .map(|(at, part)| if at == token { HIDDEN } else { part })
            .collect::<Vec<_>>()
            .join("/")
    }

    /// Returns the query for the witness log, without the secrets of a channel's address.
    pub(crate) fn told_query(&self) -> Option<String> {
        let name = self.segments.first().map_or("", String::as_str);
        let secrets = simulated(name).map_or(&[][..], |(_, channel)| channel.secrets_in_query);
        let redacted = |pair: &str| match pair.split_once('=') {
            Some((name, _)) if secrets.contains(&name) => format!("{name}={HIDDEN}"),
            _ => pair.to_owned(),
        };
        Some(
            self.raw_query
                .as_ref()?
                .split('&')
                .map(redacted)
                .collect::<Vec<_>>()
                .join("&"),
        )
    }

    /// Returns the shape of the body, without its content. For a form, the names of its fields.
    pub(crate) fn shape(&self) -> Option<Value> {
        if self.media_type() == "application/x-www-form-urlencoded" {
            return Some(
                self.form()
                    .into_keys()
                    .map(|name| (name, json!("string")))
                    .collect(),
            );
        }
        self.json::<Value>().ok().map(|body| shape(&body))
    }

    pub(crate) fn body_sha256(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(&self.body))
    }
}

/// Returns the shape of a JSON value, without its content.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(number) if number.is_f64() => json!("number"),
        Value::Number(_) => json!("integer"),
        Value::String(_) => json!("string"),
        Value::Array(items) => {
            let mut shapes = Vec::new();
            for shape in items.iter().map(shape) {
                if !shapes.contains(&shape) {
                    shapes.push(shape);
                }
            }
            Value::Array(shapes)
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), shape(value)))
            .collect(),
    }
}

fn form(text: &str) -> BTreeMap<String, String> {
    let pairs = text
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs
        .map(|(name, value)| (form_decoded(name), form_decoded(value)))
        .collect()
}

fn form_decoded(text: &str) -> String {
    percent_decoded(&text.replace('+', " "))
}

/// Decodes percent-encoding (RFC 3986 §2.1). A `%` that is not followed by two hexadecimal digits
/// stands for itself.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).filter(|_| *first == b'%');
        match pair.and_then(|hex| data_encoding::HEXLOWER_PERMISSIVE.decode(hex).ok()) {
            Some(decoded) => {
                bytes.extend(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The key and subject of a request, determined before it is carried out.
#[derive(Debug, Default)]
pub struct Description {
    /// The key that repetitions of the request share.
    pub key: Option<String>,
    /// The subject: `slack:C042`.
    pub subject: Option<String>,
}

/// An answer, with its facts for the witness log.
#[derive(Debug)]
pub struct SimulatedAnswer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Cow<'static, str>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the request changed something.
    pub(crate) effect: bool,
    /// Further facts for the witness log.
    pub(crate) detail: Value,
}

impl SimulatedAnswer {
    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::text(status, "application/json; charset=utf-8", &body.to_string())
    }

    pub(crate) fn ok(body: &Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// Returns a 200 with `{count, value}`, the vendor's form of a list.
    pub(crate) fn list(items: &[Value]) -> Self {
        Self::ok(&json!({ "count": items.len(), "value": items }))
    }

    pub(crate) fn text(
        status: StatusCode,
        content_type: impl Into<Cow<'static, str>>,
        body: &str,
    ) -> Self {
        let body = body.as_bytes().to_vec();
        Self {
            status,
            content_type: content_type.into(),
            headers: Vec::new(),
            body,
            effect: false,
            detail: json!({}),
        }
    }

    pub(crate) fn header(mut self, name: &str, value: String) -> Self {
        self.headers.push((name.to_owned(), value));
        self
    }

    /// Sets the further facts for the witness log.
    pub(crate) fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// Marks the answer as one that changed something.
    pub(crate) fn effect(mut self) -> Self {
        self.effect = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn a_shape_has_names_and_types_and_nothing_of_what_is_said() {
        let body = json!([{"a": 1, "b": [1, 2, "x", 1.5], "c": {"d": null, "e": true}}, {"a": "canary"}, {"a": 3}]);
        let shapes = json!([
            {"a": "integer", "b": ["integer", "string", "number"], "c": {"d": "null", "e": "boolean"}},
            {"a": "string"}, {"a": "integer"}
        ]);
        assert_eq!(shape(&body), shapes);
    }

    #[test]
    fn the_witness_receives_no_token_in_a_path_no_secret_of_a_query_and_no_value_of_a_form() {
        let call = |target: &str| {
            let (path, query) = target
                .split_once('?')
                .map_or((target, None), |(path, query)| (path, Some(query)));
            let form = "application/x-www-form-urlencoded; charset=x";
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, form.parse().unwrap())]);
            let body = b"client_secret=canary&scope=a+b".to_vec();
            ReceivedCall::new(Method::POST, path, query, headers, body)
        };
        for (target, path, query) in [
            (
                "/api/v10/webhooks/42/canary?wait=true",
                "/api/v10/webhooks/42/***",
                Some("wait=true"),
            ),
            (
                "/api/webhooks/42/canary/messages/7",
                "/api/webhooks/42/***/messages/7",
                None,
            ),
            ("/api/webhooks/42", "/api/webhooks/42", None),
            (
                "/teams/flow?sp=x&sig=canary&sv=1",
                "/teams/flow",
                Some("sp=x&sig=***&sv=1"),
            ),
            (
                "/google_chat/v1/spaces/AAAA/messages?key=canary&token=canary&requestId=k1",
                "/google_chat/v1/spaces/AAAA/messages",
                Some("key=***&token=***&requestId=k1"),
            ),
            (
                "/contoso/webhooks/1/kept?signal=1&x",
                "/contoso/webhooks/1/kept",
                Some("signal=1&x"),
            ),
        ] {
            let call = call(target);
            assert_eq!(
                (call.told_path().as_str(), call.told_query().as_deref()),
                (path, query)
            );
            assert_eq!(
                call.shape(),
                Some(json!({"client_secret": "string", "scope": "string"}))
            );
        }
    }

    #[test]
    fn a_path_part_is_decoded_and_a_lone_percent_sign_stands_for_itself() {
        assert_eq!(
            percent_decoded("Fabrikam%20F%c3%zz"),
            "Fabrikam F\u{fffd}%zz"
        );
        assert_eq!(percent_decoded("F%C3%BCr+100%"), "Für+100%");
        assert_eq!(form_decoded("a+b%2Bc"), "a b+c");
    }
}
