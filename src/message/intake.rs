//! From an AMQP body to a [`Request`]: limits first, then JSON, then shape, then secrets hashed or sealed. Pure.
//!
//! A value that cannot be represented (see [`repair`]) costs only what holds it. In an event's payload, which nobody reads here, it
//! is repaired; in a field that is read, the message is refused with the field's path.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use time::{OffsetDateTime, UtcOffset};

use super::refusal::Refusal;
use super::repair::{Repaired, repair, without_mark};
use super::{
    ACCOUNT_LENGTH, DEPTH_LIMIT, EVENTS_LIMIT, HEADERS_LIMIT, HookEvent, Interaction, KEY_LENGTH, MESSAGE_LIMIT, NAME_LENGTH,
    NOTIFY_LIMIT, Request, SCHEMA, SEARCH_LENGTH, SEARCH_LIMIT, SEARCH_NAME_LENGTH, SEARCH_NAMES_LIMIT, SOURCE_LENGTH, Search,
    TOKEN_LENGTH, wire,
};
use crate::job::JobId;
use crate::secrets::Keyring;

/// What came beside the body.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// AMQP `content_type`.
    pub content_type: Option<String>,
    /// AMQP `content_encoding`.
    pub content_encoding: Option<String>,
    /// AMQP `message_id`, the dedupe key where the body has none.
    pub message_id: Option<String>,
    /// AMQP `app_id`, the source where the body has none.
    pub app_id: Option<String>,
    /// AMQP `user_id`: RabbitMQ takes no message whose connection belongs to another user
    /// (<https://www.rabbitmq.com/docs/validated-user-id>).
    pub user_id: Option<String>,
    /// Size of the header table in bytes.
    pub header_bytes: usize,
}

/// A decoded intake message.
#[derive(Debug)]
pub enum Intake {
    /// A job this worker can run.
    Request {
        /// As stored.
        request: Box<Request>,
        /// SHA-256 of the canonical JSON, secrets hashed.
        digest: [u8; 32],
    },
    /// A job of a newer schema: stored sealed, left for a newer worker.
    Newer(Newer),
}

/// What is known of a job of a newer schema.
#[derive(Debug, PartialEq, Eq)]
pub struct Newer {
    /// Its number.
    pub schema: i64,
    /// The producer.
    pub source: String,
    /// Its key.
    pub dedupe_key: String,
    /// The tenant, where the message says it as this schema does.
    pub organization: String,
    /// SHA-256 of the canonical JSON.
    pub digest: [u8; 32],
}

/// Decodes an intake message for the job `id`, whose row seals the interaction token.
///
/// # Errors
/// [`Refusal`], whose text says what would be right.
pub fn decode_intake(body: &[u8], envelope: &Envelope, keyring: &Keyring, id: JobId) -> Result<Intake, Refusal> {
    let body = admissible(body, envelope)?;
    let peek = body.value()?;
    let schema = peek.get("schema").ok_or(Refusal::Missing("schema"))?;
    let schema =
        schema.as_i64().filter(|number| *number >= 1).ok_or_else(|| invalid("schema", "right is a whole number from 1"))?;
    let source = key_field(&peek, "source", envelope.app_id.as_deref(), SOURCE_LENGTH)?;
    let dedupe_key = key_field(&peek, "dedupe_key", envelope.message_id.as_deref(), KEY_LENGTH)?;
    let digest = canonical_digest(&peek);
    if schema > SCHEMA + 1 {
        return Err(Refusal::UnknownSchema(schema));
    }
    if schema > SCHEMA {
        body.shaped::<Head>()?;
        let organization = peek.get("organization").and_then(Value::as_str).unwrap_or_default();
        let organization = crate::fault::storable(organization, 64);
        return Ok(Intake::Newer(Newer { schema, source, dedupe_key, organization, digest }));
    }
    if peek.get("organization").is_none_or(Value::is_null) {
        return Err(Refusal::Missing("organization"));
    }
    let mut wire: wire::Job = body.shaped()?;
    body.repair_payloads(&mut wire.events)?;
    let request = Box::new(checked(wire, source, dedupe_key, keyring, id)?);
    Ok(Intake::Request { request, digest })
}

/// What is read of a message of any schema, each at most once: where a key stands twice, another reader may take the message for
/// another job. Source and key are whole texts: repaired, two keys could become one.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only looked for twice, and for what is spoiled")]
struct Head {
    schema: Option<IgnoredAny>,
    source: Option<String>,
    dedupe_key: Option<String>,
    organization: Option<IgnoredAny>,
}

/// Decodes a `configure` or `cancel` message.
///
/// # Errors
/// [`Refusal`], whose text says what would be right.
pub fn decode_control<T: DeserializeOwned>(body: &[u8], envelope: &Envelope) -> Result<T, Refusal> {
    let body = admissible(body, envelope)?;
    match body.value()?.get("schema").and_then(Value::as_i64) {
        Some(newer) if newer > SCHEMA => Err(Refusal::Schema(newer)),
        _ => body.shaped(),
    }
}

/// SHA-256 of a message's canonical JSON: keys sorted, no white space, each `shared_secret` and `token` replaced by its
/// SHA-256, so that the digest can be stored.
#[must_use]
pub fn canonical_digest(message: &Value) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(with_hashed_secrets(message).to_string().as_bytes());
    hash.finalize().into()
}

fn with_hashed_secrets(value: &Value) -> Value {
    let hashed = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(secret) if key == "shared_secret" || key == "token" => Value::String(sha256_hex(secret)),
            other => with_hashed_secrets(other),
        };
        (key.clone(), value)
    };
    match value {
        Value::Object(fields) => Value::Object(fields.iter().map(hashed).collect()),
        Value::Array(items) => Value::Array(items.iter().map(with_hashed_secrets).collect()),
        plain => plain.clone(),
    }
}

/// A body within the limits.
struct Body<'a> {
    as_sent: &'a str,
    repaired: Cow<'a, str>,
}

fn admissible<'a>(body: &'a [u8], envelope: &Envelope) -> Result<Body<'a>, Refusal> {
    if body.len() > MESSAGE_LIMIT {
        return Err(Refusal::TooLarge(body.len()));
    }
    if envelope.header_bytes > HEADERS_LIMIT {
        return Err(Refusal::HeadersTooLarge);
    }
    let media = envelope.content_type.as_deref().unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::ContentType(crate::fault::storable(media, 100)));
    }
    if let Some(encoding) = envelope.content_encoding.as_deref().filter(|encoding| !is_plain(encoding)) {
        return Err(Refusal::ContentEncoding(crate::fault::storable(encoding, 100)));
    }
    let text = without_mark(body);
    let as_sent = std::str::from_utf8(text).map_err(|error| Refusal::NotUtf8(body.len() - text.len() + error.valid_up_to()))?;
    let Repaired { text: repaired, depth } = repair(as_sent);
    if depth > DEPTH_LIMIT {
        return Err(Refusal::TooDeep);
    }
    Ok(Body { as_sent, repaired })
}

/// Whether a body of this `content_encoding` is JSON as it stands. Spring AMQP and kombu set the character set there.
fn is_plain(content_encoding: &str) -> bool {
    ["", "identity", "utf-8", "utf8"].iter().any(|plain| content_encoding.eq_ignore_ascii_case(plain))
}

impl Body<'_> {
    /// All of it.
    fn value(&self) -> Result<Value, Refusal> {
        serde_json::from_str(&self.repaired).map_err(|error| {
            // With its place in the body as sent.
            let error = serde_json::from_str::<IgnoredAny>(self.as_sent).err().unwrap_or(error);
            Refusal::NotJson(error.to_string())
        })
    }

    /// The body as sent in the shape of `T`: what is spoiled is met only where it is read. That it is JSON is known by then.
    fn shaped<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let mut reader = serde_json::Deserializer::from_str(self.as_sent);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            let detail = if inner.is_syntax() || inner.is_eof() { spoiled(&inner) } else { without_value(&inner.to_string()) };
            Refusal::Invalid { path, detail: crate::fault::storable(&detail, 500) }
        })?;
        reader.end().map_err(|error| Refusal::NotJson(error.to_string()))?;
        Ok(value)
    }

    /// What is stored of the events, where something in the body is spoiled.
    fn repair_payloads(&self, events: &mut [wire::Event]) -> Result<(), Refusal> {
        if matches!(self.repaired, Cow::Borrowed(_)) {
            return Ok(());
        }
        for event in events {
            let Cow::Owned(text) = repair(event.payload.get()).text else { continue };
            event.payload = RawValue::from_string(text).map_err(|error| Refusal::NotJson(error.to_string()))?;
        }
        Ok(())
    }
}

/// Why a value of a JSON text cannot be read. The parser's words name its place and repeat nothing of it.
fn spoiled(error: &serde_json::Error) -> String {
    format!(
        "expected a value that can be represented, got {error}; use whole characters, and numbers that a 64-bit float can hold"
    )
}

/// A shape error of serde's without the value it met (``invalid type: integer `7`, expected a string``), which may be a secret
/// given in the wrong place or as the wrong type. A refusal is stored, logged and announced.
fn without_value(detail: &str) -> String {
    let quotes_a_value = detail.starts_with("invalid type: ") || detail.starts_with("invalid value: ");
    match detail.rfind(", expected ").filter(|_| quotes_a_value) {
        Some(end) => {
            let kind = detail[..end].split(['`', '"']).next().unwrap_or_default();
            format!("{}{}", kind.trim_end(), &detail[end..])
        }
        None => detail.to_owned(),
    }
}

fn key_field(peek: &Value, name: &'static str, beside: Option<&str>, limit: usize) -> Result<String, Refusal> {
    let value = match peek.get(name) {
        None | Some(Value::Null) => beside.ok_or(Refusal::Missing(name))?,
        Some(value) => value.as_str().ok_or_else(|| invalid(name, "right is a string"))?,
    };
    text_field(name, value, limit)?;
    Ok(value.to_owned())
}

fn text_field(path: &str, value: &str, limit: usize) -> Result<(), Refusal> {
    wire::check_text(value, limit).map_err(|detail| invalid(path, &detail))
}

fn names_field(path: &str, names: &[String], limit: usize, length: usize) -> Result<(), Refusal> {
    if names.len() > limit {
        return Err(invalid(path, &format!("{} are given; at most {limit} are taken", names.len())));
    }
    names.iter().try_for_each(|name| text_field(path, name, length))
}

/// Postgres keeps times in UTC, where one near the ends of the calendar may lie in a year that RFC 3339 cannot write.
fn date_field(path: &str, value: Option<OffsetDateTime>) -> Result<(), Refusal> {
    let Some(value) = value else { return Ok(()) };
    match value.checked_to_offset(UtcOffset::UTC) {
        Some(utc) if (0..=9999).contains(&utc.year()) => Ok(()),
        Some(_) | None => Err(invalid(path, "right is a time that lies in the years 0000 to 9999 of UTC")),
    }
}

fn checked(wire: wire::Job, source: String, dedupe_key: String, keyring: &Keyring, id: JobId) -> Result<Request, Refusal> {
    text_field("organization", &wire.organization, NAME_LENGTH)?;
    for (path, value) in [("account", &wire.account), ("identity", &wire.identity)] {
        if let Some(value) = value {
            text_field(path, value, ACCOUNT_LENGTH)?;
        }
    }
    for (path, value) in [("not_before", wire.not_before), ("deadline", wire.deadline)] {
        date_field(path, value)?;
    }
    if wire.events.len() > EVENTS_LIMIT {
        return Err(Refusal::TooManyEvents(wire.events.len()));
    }
    if let Some(search) = &wire.search {
        check_search(search)?;
    }
    if let Some(interaction) = &wire.interaction {
        check_interaction(interaction)?;
    }
    names_field("notify", wire.notify.as_deref().unwrap_or_default(), NOTIFY_LIMIT, ACCOUNT_LENGTH)?;
    let row = id.to_string();
    let interaction = wire.interaction.map(|given| Interaction {
        application_id: given.application_id,
        sealed_token: keyring.seal(Interaction::token_place(&row), given.token.as_bytes()),
        message_id: given.message_id,
    });
    let events = wire
        .events
        .into_iter()
        .map(|event| HookEvent { payload: event.payload, secret_sha256: event.shared_secret.as_deref().map(sha256_hex) });
    Ok(Request {
        schema: wire.schema,
        source,
        dedupe_key,
        organization: wire.organization,
        account: wire.account,
        identity: wire.identity,
        search: wire.search,
        events: events.collect(),
        notify: wire.notify,
        interaction,
        not_before: wire.not_before,
        deadline: wire.deadline,
    })
}

fn check_search(search: &Search) -> Result<(), Refusal> {
    text_field("search.text", &search.text, SEARCH_LENGTH)?;
    if let Some(project) = &search.project {
        text_field("search.project", project, SEARCH_NAME_LENGTH)?;
        if !wire::is_segment(project) {
            let right = "right is a project's name or id: no control characters, and not dots and blanks alone";
            return Err(invalid("search.project", right));
        }
    }
    for (path, names) in [("search.work_item_types", &search.work_item_types), ("search.states", &search.states)] {
        names_field(path, names, SEARCH_NAMES_LIMIT, SEARCH_NAME_LENGTH)?;
    }
    if !(1..=SEARCH_LIMIT).contains(&search.limit) {
        return Err(invalid("search.limit", &format!("right is 1 to {SEARCH_LIMIT}")));
    }
    Ok(())
}

/// What becomes part of an address is what Discord makes, and nothing that leads elsewhere.
fn check_interaction(interaction: &wire::Interaction) -> Result<(), Refusal> {
    if !wire::is_discord_id(&interaction.application_id) {
        return Err(invalid("interaction.application_id", "right is a Discord id: up to 20 digits, as text"));
    }
    if interaction.message_id.as_deref().is_some_and(|id| id != "@original" && !wire::is_discord_id(id)) {
        return Err(invalid("interaction.message_id", "right is a Discord id, as text, or `@original`"));
    }
    text_field("interaction.token", &interaction.token, TOKEN_LENGTH)?;
    if !wire::is_interaction_token(&interaction.token) {
        return Err(invalid("interaction.token", "right is the token as Discord gave it"));
    }
    Ok(())
}

fn sha256_hex(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

fn invalid(path: &str, detail: &str) -> Refusal {
    Refusal::Invalid { path: path.to_owned(), detail: detail.to_owned() }
}
