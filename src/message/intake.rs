//! Decodes an AMQP body into a [`Request`]: limits first, then JSON, then the shape, then secrets
//! hashed or sealed. No I/O.
//!
//! A value that cannot be represented (see [`repair`]) affects only the part that holds it. In an
//! event's payload, which is not parsed here, it is repaired. In a field that is parsed, it causes
//! a refusal that names the field's path.

use std::borrow::Cow;

use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::checks::{check_job, invalid, key_field};
use super::refusal::Refusal;
use super::repair::{Repaired, repair, without_mark};
use super::{
    DEPTH_LIMIT, HookEvent, Interaction, KEY_LENGTH, MESSAGE_LIMIT, Request, SCHEMA, SOURCE_LENGTH,
    wire,
};
use crate::job::JobId;
use crate::secrets::Keyring;

/// The AMQP properties of a message, and whether its headers are too large.
#[derive(Debug, Clone, Default)]
pub struct Envelope {
    /// AMQP `content_type`.
    pub content_type: Option<String>,
    /// AMQP `content_encoding`.
    pub content_encoding: Option<String>,
    /// AMQP `message_id`: the dedupe key if the body has none.
    pub message_id: Option<String>,
    /// AMQP `app_id`: the source if the body has none.
    pub app_id: Option<String>,
    /// AMQP `user_id`. RabbitMQ rejects a message whose `user_id` differs from the user of its
    /// connection (<https://www.rabbitmq.com/docs/validated-user-id>).
    pub user_id: Option<String>,
    /// Whether the header table is larger than [`super::HEADERS_LIMIT`].
    pub headers_too_large: bool,
}

/// A decoded intake message.
#[derive(Debug)]
pub enum Intake {
    /// A job that this worker can run.
    Request {
        /// The job as stored.
        request: Box<Request>,
        /// SHA-256 of the canonical JSON with its secrets hashed.
        digest: [u8; 32],
    },
    /// A job with a newer schema: stored sealed, for a newer worker.
    Newer(Newer),
}

/// The known fields of a job with a newer schema.
#[derive(Debug, PartialEq, Eq)]
pub struct Newer {
    pub schema: i64,
    /// The producer.
    pub source: String,
    pub dedupe_key: String,
    /// The tenant's slug, if the message has it in the same place as this schema.
    pub organization: String,
    /// SHA-256 of the canonical JSON.
    pub digest: [u8; 32],
}

/// Decodes an intake message for the job `id`. The interaction token is sealed for that job's row.
///
/// # Errors
/// [`Refusal`], whose text states what was expected.
pub fn decode_intake(
    body: &[u8],
    envelope: &Envelope,
    keyring: &Keyring,
    id: JobId,
) -> Result<Intake, Refusal> {
    Ok(match checked(body, envelope)? {
        Checked::Job(job) => Intake::Request {
            digest: job.digest,
            request: Box::new(job.sealed(keyring, id)),
        },
        Checked::Newer(newer) => Intake::Newer(newer),
    })
}

/// Decodes an intake message that stands for a stored job, whose interaction is kept.
pub(super) fn decode_again(
    body: &[u8],
    envelope: &Envelope,
    interaction: Option<Interaction>,
) -> Result<Request, Refusal> {
    match checked(body, envelope)? {
        Checked::Job(job) => Ok(job.with(interaction)),
        Checked::Newer(newer) => Err(Refusal::UnknownSchema(newer.schema)),
    }
}

/// Checks an intake message as [`decode_intake`] does, and returns its source and dedupe key.
/// Nothing is sealed.
///
/// # Errors
/// The same as [`decode_intake`].
pub fn check_intake(body: &[u8], envelope: &Envelope) -> Result<(String, String), Refusal> {
    Ok(match checked(body, envelope)? {
        Checked::Job(job) => (job.source, job.dedupe_key),
        Checked::Newer(newer) => (newer.source, newer.dedupe_key),
    })
}

/// A message that this worker accepts.
enum Checked {
    Job(Box<CheckedJob>),
    Newer(Newer),
}

/// A job as sent; its secrets are neither hashed nor sealed yet.
struct CheckedJob {
    wire: wire::Job,
    source: String,
    dedupe_key: String,
    digest: [u8; 32],
}

fn checked(body: &[u8], envelope: &Envelope) -> Result<Checked, Refusal> {
    let body = admissible(body, envelope)?;
    let peek = body.value()?;
    let schema = peek.get("schema").ok_or(Refusal::Missing("schema"))?;
    let schema = schema
        .as_i64()
        .filter(|number| *number >= 1)
        .ok_or_else(|| invalid("schema", "expected a whole number from 1"))?;
    let source = key_field(&peek, "source", envelope.app_id.as_deref(), SOURCE_LENGTH)?;
    let dedupe_key = key_field(
        &peek,
        "dedupe_key",
        envelope.message_id.as_deref(),
        KEY_LENGTH,
    )?;
    let digest = canonical_digest(&peek);
    if schema > SCHEMA + 1 {
        return Err(Refusal::UnknownSchema(schema));
    }
    if schema > SCHEMA {
        body.shaped::<Head>()?;
        let organization = peek
            .get("organization")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let organization = crate::fault::storable(organization, 64);
        return Ok(Checked::Newer(Newer {
            schema,
            source,
            dedupe_key,
            organization,
            digest,
        }));
    }
    if peek.get("organization").is_none_or(Value::is_null) {
        return Err(Refusal::Missing("organization"));
    }
    let mut wire: wire::Job = body.shaped()?;
    body.repair_payloads(&mut wire.events)?;
    check_job(&wire)?;
    Ok(Checked::Job(Box::new(CheckedJob {
        wire,
        source,
        dedupe_key,
        digest,
    })))
}

impl CheckedJob {
    /// Returns the job as stored, with its secrets hashed or sealed for the row of the job `id`.
    fn sealed(mut self, keyring: &Keyring, id: JobId) -> Request {
        let row = id.to_string();
        let interaction = self.wire.interaction.take().map(|given| Interaction {
            application_id: given.application_id,
            sealed_token: keyring.seal(Interaction::token_place(&row), given.token.as_bytes()),
            message_id: given.message_id,
        });
        self.with(interaction)
    }

    /// Returns the job as stored, with this interaction and with its other secrets hashed.
    fn with(self, interaction: Option<Interaction>) -> Request {
        let Self {
            wire,
            source,
            dedupe_key,
            ..
        } = self;
        let events = wire.events.into_iter().map(|event| HookEvent {
            payload: event.payload,
            secret_sha256: event.shared_secret.as_deref().map(sha256_hex),
        });
        Request {
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
        }
    }
}

/// The fields that are read from a message of any schema, each at most once: if a key occurred
/// twice, another parser could take the message for another job. Source and key are strings that
/// need no repair: after a repair, two keys could be equal.
#[derive(Deserialize)]
#[expect(
    dead_code,
    reason = "only checked for duplicates and for values that cannot be represented"
)]
struct Head {
    schema: Option<IgnoredAny>,
    source: Option<String>,
    dedupe_key: Option<String>,
    organization: Option<IgnoredAny>,
}

/// Decodes a `configure` or `cancel` message.
///
/// # Errors
/// [`Refusal`], whose text states what was expected.
pub fn decode_control<T: DeserializeOwned>(body: &[u8], envelope: &Envelope) -> Result<T, Refusal> {
    let body = admissible(body, envelope)?;
    match body.value()?.get("schema").and_then(Value::as_i64) {
        Some(newer) if newer > SCHEMA => Err(Refusal::Schema(newer)),
        _ => body.shaped(),
    }
}

/// Returns the SHA-256 of a message's canonical JSON: keys sorted, no white space, each
/// `shared_secret` and `token` replaced by its SHA-256, so that the digest can be stored.
#[must_use]
pub fn canonical_digest(message: &Value) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(with_hashed_secrets(message).to_string().as_bytes());
    hash.finalize().into()
}

fn with_hashed_secrets(value: &Value) -> Value {
    let hashed = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(secret) if key == "shared_secret" || key == "token" => {
                Value::String(sha256_hex(secret))
            }
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
    if envelope.headers_too_large {
        return Err(Refusal::HeadersTooLarge);
    }
    let media = envelope.content_type.as_deref().unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::ContentType(crate::fault::storable(media, 100)));
    }
    if let Some(encoding) = envelope
        .content_encoding
        .as_deref()
        .filter(|encoding| !is_plain(encoding))
    {
        return Err(Refusal::ContentEncoding(crate::fault::storable(
            encoding, 100,
        )));
    }
    let text = without_mark(body);
    let as_sent = std::str::from_utf8(text)
        .map_err(|error| Refusal::NotUtf8(body.len() - text.len() + error.valid_up_to()))?;
    let Repaired {
        text: repaired,
        depth,
    } = repair(as_sent);
    if depth > DEPTH_LIMIT {
        return Err(Refusal::TooDeep);
    }
    Ok(Body { as_sent, repaired })
}

/// Returns whether a body with this `content_encoding` is unencoded. Spring AMQP and kombu set the
/// character set there.
fn is_plain(content_encoding: &str) -> bool {
    ["", "identity", "utf-8", "utf8"]
        .iter()
        .any(|plain| content_encoding.eq_ignore_ascii_case(plain))
}

impl Body<'_> {
    /// Parses the whole body.
    fn value(&self) -> Result<Value, Refusal> {
        serde_json::from_str(&self.repaired).map_err(|error| {
            // Take the error of the body as sent, so that its position is right.
            let error = serde_json::from_str::<IgnoredAny>(self.as_sent)
                .err()
                .unwrap_or(error);
            Refusal::NotJson(error.to_string())
        })
    }

    /// Deserializes the body as sent into a `T`. A value that cannot be represented is an error
    /// only in a field that `T` reads. The caller has already checked that the body is JSON.
    fn shaped<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let mut reader = serde_json::Deserializer::from_str(self.as_sent);
        let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let inner = error.into_inner();
            let detail = if inner.is_syntax() || inner.is_eof() {
                spoiled(&inner)
            } else {
                without_value(&inner.to_string())
            };
            Refusal::Invalid {
                path,
                detail: crate::fault::storable(&detail, 500),
            }
        })?;
        reader
            .end()
            .map_err(|error| Refusal::NotJson(error.to_string()))?;
        Ok(value)
    }

    /// Repairs the payloads of the events, if the body needed a repair.
    fn repair_payloads(&self, events: &mut [wire::Event]) -> Result<(), Refusal> {
        if matches!(self.repaired, Cow::Borrowed(_)) {
            return Ok(());
        }
        for event in events {
            let Cow::Owned(text) = repair(event.payload.get()).text else {
                continue;
            };
            event.payload =
                RawValue::from_string(text).map_err(|error| Refusal::NotJson(error.to_string()))?;
        }
        Ok(())
    }
}

/// Describes why a JSON value cannot be represented. The parser's error gives its position and
/// repeats none of its content.
fn spoiled(error: &serde_json::Error) -> String {
    format!(
        "expected a value that can be represented, got {error}; use whole characters, and numbers that a 64-bit float can hold"
    )
}

/// Returns a serde shape error without the offending value (``invalid type: integer `7`, expected
/// a string``). The value may be a secret in the wrong place or of the wrong type, and a refusal
/// is stored, logged and announced.
fn without_value(detail: &str) -> String {
    let quotes_a_value =
        detail.starts_with("invalid type: ") || detail.starts_with("invalid value: ");
    match detail.rfind(", expected ").filter(|_| quotes_a_value) {
        Some(end) => {
            let kind = detail[..end].split(['`', '"']).next().unwrap_or_default();
            format!("{}{}", kind.trim_end(), &detail[end..])
        }
        None => detail.to_owned(),
    }
}

fn sha256_hex(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}
