//! Reasons why a message did not become a job.

use super::{DEPTH_LIMIT, EVENTS_LIMIT, HEADERS_LIMIT, LONGEST_DELAY, MESSAGE_LIMIT, SCHEMA};
use crate::quota::Over;

/// The reason why a message became a dead letter. Its `Display` text states what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("expected a message of at most {MESSAGE_LIMIT} bytes, got {0}")]
    TooLarge(usize),
    #[error("the header table has more than {HEADERS_LIMIT} bytes")]
    HeadersTooLarge,
    #[error("expected the content type application/json, got {0:?}")]
    ContentType(String),
    /// Compressed or otherwise encoded.
    #[error(
        "expected a body without content_encoding, or with identity or utf-8, got {0:?}; use a body that is not compressed"
    )]
    ContentEncoding(String),
    #[error("the body is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("the body is nested deeper than {DEPTH_LIMIT} arrays and objects")]
    TooDeep,
    /// The body does not match the schema.
    #[error("at `{path}`: {detail}")]
    Invalid {
        /// Path of the field.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    #[error("`{0}` is required")]
    Missing(&'static str),
    #[error("expected at most {EVENTS_LIMIT} events, got {0}")]
    TooManyEvents(usize),
    #[error(
        "job {0} has the same dedupe_key and another payload; use a new dedupe_key for a new job"
    )]
    DedupeConflict(String),
    #[error("the routing key {0:?} is unknown")]
    RoutingKey(String),
    /// A `configure` or `cancel` with a newer schema, whose meaning is unknown.
    #[error("expected a `schema` of {SCHEMA}, got {0}")]
    Schema(i64),
    /// A job with a schema that the next version of this program will not support either.
    #[error("expected a `schema` from 1 to {next}, got {got}; use {SCHEMA}", next = SCHEMA + 1, got = .0)]
    UnknownSchema(i64),
    /// The message does not name its sender.
    #[error(
        "expected the AMQP property user_id, got none; use the name of the RabbitMQ user that publishes, and register it \
         with `dispatch producers register`"
    )]
    NoUser,
    /// The sender is not a registered producer.
    #[error(
        "expected a registered producer as user_id, got {0:?}; use `dispatch producers register {0}`"
    )]
    UnknownProducer(String),
    /// The message uses a name that its producer may not use.
    #[error(
        "expected {what} of producer {producer:?}, got {value:?}; use one of its own, or `dispatch producers register`"
    )]
    NotPermitted {
        /// The kind of name, with its article.
        what: &'static str,
        /// The producer that sent the message.
        producer: String,
        value: String,
    },
    /// The message claims to be a replay by an operator, without a valid proof.
    #[error(
        "expected a header `x-dispatch-replay` of `dispatch dead-letters replay`, got another; use none"
    )]
    ForgedReplay,
    /// The tracker does not have this organization.
    #[error(
        "expected an organization of the tracker, got {0:?}; use `dispatch tracker import` to add it"
    )]
    UnknownOrganization(String),
    /// `not_before` is too far in the future.
    #[error("expected a `not_before` within {days} days, got {got}; use an earlier time", days = LONGEST_DELAY.whole_days(), got = .0)]
    TooFarAhead(String),
    #[error(
        "the wake-up cannot be parsed: {0}; expected {{\"job_id\": …}}, which only workers send"
    )]
    WakeUp(String),
    /// A `configure` or `cancel` for a job that does not exist.
    #[error("there is no such job")]
    NoSuchJob,
    /// Its producer or its organization has reached a quota in Postgres.
    #[error("{0}")]
    Quota(Over),
    /// Postgres permanently refused to store the message.
    #[error("the message cannot be stored: {0}")]
    Undeliverable(String),
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Refusal {
    /// Every code that [`Refusal::code`] returns.
    pub const CODES: [&str; 23] = [
        "too_large",
        "headers_too_large",
        "unsupported_content_type",
        "unsupported_content_encoding",
        "not_utf8",
        "not_json",
        "too_deep",
        "invalid_request",
        "missing_field",
        "too_many_events",
        "dedupe_conflict",
        "unknown_routing_key",
        "unsupported_schema",
        "no_user_id",
        "unknown_producer",
        "not_permitted",
        "forged_replay",
        "unknown_organization",
        "not_before_too_far",
        "invalid_wake_up",
        "no_such_job",
        "quota",
        "undeliverable",
    ];

    /// Returns the stable reason code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::HeadersTooLarge => "headers_too_large",
            Self::ContentType(_) => "unsupported_content_type",
            Self::ContentEncoding(_) => "unsupported_content_encoding",
            Self::NotUtf8(_) => "not_utf8",
            Self::NotJson(_) => "not_json",
            Self::TooDeep => "too_deep",
            Self::Invalid { .. } => "invalid_request",
            Self::Missing(_) => "missing_field",
            Self::TooManyEvents(_) => "too_many_events",
            Self::DedupeConflict(_) => "dedupe_conflict",
            Self::RoutingKey(_) => "unknown_routing_key",
            Self::Schema(_) | Self::UnknownSchema(_) => "unsupported_schema",
            Self::NoUser => "no_user_id",
            Self::UnknownProducer(_) => "unknown_producer",
            Self::NotPermitted { .. } => "not_permitted",
            Self::ForgedReplay => "forged_replay",
            Self::UnknownOrganization(_) => "unknown_organization",
            Self::TooFarAhead(_) => "not_before_too_far",
            Self::WakeUp(_) => "invalid_wake_up",
            Self::NoSuchJob => "no_such_job",
            Self::Quota(_) => "quota",
            Self::Undeliverable(_) => "undeliverable",
        }
    }

    /// Returns the path of the field at fault, if it is one field.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        if let Self::Invalid { path, .. } = self {
            Some(path)
        } else if let Self::Missing(field) = self {
            Some(field)
        } else {
            None
        }
    }
}
