//! Why a message could not become a job.

use super::{DEPTH_LIMIT, EVENTS_LIMIT, HEADERS_LIMIT, LONGEST_DELAY, MESSAGE_LIMIT, SCHEMA};
use crate::quota::Over;

/// Why a message was made a dead letter. `Display` says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Over the size limit.
    #[error("the message has {0} bytes; at most {MESSAGE_LIMIT} are taken")]
    TooLarge(usize),
    /// Over the header limit.
    #[error("the header table has more than {HEADERS_LIMIT} bytes")]
    HeadersTooLarge,
    /// Not JSON by its own word.
    #[error("the content type is {0:?}; right is application/json")]
    ContentType(String),
    /// Compressed or otherwise encoded.
    #[error("expected a body without content_encoding, or with identity or utf-8, got {0:?}; use a body that is not compressed")]
    ContentEncoding(String),
    /// Not text.
    #[error("the body is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// Not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// Nested too deep.
    #[error("the body is nested deeper than {DEPTH_LIMIT} arrays and objects")]
    TooDeep,
    /// Not of the schema's shape.
    #[error("at `{path}`: {detail}")]
    Invalid {
        /// Where, as a path.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// A required field is missing.
    #[error("`{0}` is required")]
    Missing(&'static str),
    /// Too many events.
    #[error("the job has {0} events; at most {EVENTS_LIMIT} are taken")]
    TooManyEvents(usize),
    /// The same key came with another payload.
    #[error("job {0} came with this key and another payload; use a new dedupe_key for a new job")]
    DedupeConflict(String),
    /// No handler for it.
    #[error("no message is taken with the routing key {0:?}")]
    RoutingKey(String),
    /// A `configure` or `cancel` of a newer schema: what it asks for is not known.
    #[error("`schema` is {0}, and this worker knows {SCHEMA} alone")]
    Schema(i64),
    /// A job of a schema that the next version of this program will not know either.
    #[error("expected a `schema` from 1 to {next}, got {got}; use {SCHEMA}", next = SCHEMA + 1, got = .0)]
    UnknownSchema(i64),
    /// Nobody knows who sent it.
    #[error(
        "expected the AMQP property user_id, got none; use the name of the RabbitMQ user that publishes, and have it registered \
         with `dispatch producers register`"
    )]
    NoUser,
    /// Sent by a user that is no producer.
    #[error("expected a registered producer as user_id, got {0:?}; use `dispatch producers register {0}`")]
    UnknownProducer(String),
    /// It names what is not its producer's.
    #[error("expected {what} of producer {producer:?}, got {value:?}; use one of its own, or `dispatch producers register`")]
    NotPermitted {
        /// A kind of name, with its article.
        what: &'static str,
        /// Who sent the message.
        producer: String,
        /// What it names.
        value: String,
    },
    /// It claims to be published again by an operator, and cannot prove it.
    #[error("expected a header `x-dispatch-replay` of `dispatch dead-letters replay`, got another; use none")]
    ForgedReplay,
    /// The tracker has no such organization.
    #[error("expected an organization of the tracker, got {0:?}; use `dispatch tracker import` to add it")]
    UnknownOrganization(String),
    /// Put off for too long.
    #[error("expected a `not_before` within {days} days, got {got}; use an earlier time", days = LONGEST_DELAY.whole_days(), got = .0)]
    TooFarAhead(String),
    /// A wake-up that names no job.
    #[error("the wake-up is not one: {0}; right is {{\"job_id\": …}}, and only workers send it")]
    WakeUp(String),
    /// A `configure` or `cancel` for a job that is not there.
    #[error("there is no such job")]
    NoSuchJob,
    /// Its producer, or its organization, has too much in Postgres already.
    #[error("{0}")]
    Quota(Over),
    /// The broker gave up delivering it.
    #[error("the broker gave up delivering it: {0}")]
    Undeliverable(String),
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Refusal {
    /// Stable reason code.
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
}
