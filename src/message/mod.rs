//! The wire: what producers send ([`Request`], [`Configure`], [`Cancel`]), what the worker sends itself ([`WakeUp`]) and what it
//! announces ([`Outcome`], made of the [`Facts`] that `store` keeps). Decoding an intake message is [`decode_intake`].

mod about;
mod discarded;
mod headers;
mod intake;
pub mod outcome;
mod producer;
mod refusal;
mod repair;
mod replay;
pub mod schema;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

pub use about::AboutJob;
pub use discarded::{Discarded, Said};
pub use headers::{DELIVERY_COUNTS, allowed_headers};
pub use intake::{Envelope, Intake, Newer, canonical_digest, decode_control, decode_intake};
pub use outcome::{Facts, Outcome};
pub use producer::{DIRECT_REPLY, Named, Producer, Sender};
pub use refusal::Refusal;
pub use repair::{read_body, shown_string, without_mark};
pub use replay::{REPLAY, proof_of_replay, replayed_for};
pub use wire::{is_discord_id, is_interaction_token, is_segment};

use crate::job::JobId;
use crate::secrets::Place;

/// The newest intake schema this worker knows.
pub const SCHEMA: i64 = 1;
/// The largest intake message, in bytes.
pub const MESSAGE_LIMIT: usize = 1 << 20;
/// The deepest JSON, in nested arrays and objects.
pub const DEPTH_LIMIT: usize = 64;
/// The most events of one job.
pub const EVENTS_LIMIT: usize = 200;
/// The most destinations of one job.
pub const NOTIFY_LIMIT: usize = 50;
/// The most work items of one search.
pub const SEARCH_LIMIT: u32 = 1000;
/// The longest producer's name, in characters.
pub const SOURCE_LENGTH: usize = 64;
/// The longest dedupe key, in characters.
pub const KEY_LENGTH: usize = 255;
/// The longest organization's slug, in characters.
pub const NAME_LENGTH: usize = 64;
/// The longest account id, and the longest name of an identity or a destination, in characters.
pub const ACCOUNT_LENGTH: usize = 255;
/// The longest search text, in characters.
pub const SEARCH_LENGTH: usize = 1000;
/// The longest project, work item type and state of a search, in characters.
pub const SEARCH_NAME_LENGTH: usize = 255;
/// The most work item types of one search, and the most states.
pub const SEARCH_NAMES_LIMIT: usize = 50;
/// The longest token of an interaction, in characters.
pub const TOKEN_LENGTH: usize = 1024;
/// How long a job may be put off by `not_before`.
pub const LONGEST_DELAY: time::Duration = time::Duration::days(30);
/// The largest AMQP header table, in bytes.
pub const HEADERS_LIMIT: usize = 8 << 10;

/// Where the raw bytes of a job of a newer schema are sealed for.
#[must_use]
pub const fn sealed_place(job: &str) -> Place<'_> {
    Place { table: "jobs", column: "sealed_payload", row: job }
}

/// A dispatch job as stored: the intake message after its secrets were hashed or sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Of the message.
    pub schema: i64,
    /// The producer.
    pub source: String,
    /// Unique for the producer while the job is kept.
    pub dedupe_key: String,
    /// The tenant's slug.
    pub organization: String,
    /// Azure DevOps account id; none asks for configuration.
    pub account: Option<String>,
    /// Which identity to act as; none means the installation's.
    pub identity: Option<String>,
    /// What to search for.
    pub search: Option<Search>,
    /// Service-hook bodies.
    pub events: Vec<HookEvent>,
    /// Names of destinations; none means the organization's defaults, an empty list nobody.
    pub notify: Option<Vec<String>>,
    /// Where a person clicked.
    pub interaction: Option<Interaction>,
    /// Not to start before this.
    #[serde(with = "time::serde::rfc3339::option")]
    pub not_before: Option<OffsetDateTime>,
    /// Not to be worked on after this.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deadline: Option<OffsetDateTime>,
}

/// A search for work items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Azure DevOps' search text.
    #[schemars(length(min = 1, max = SEARCH_LENGTH), regex(pattern = wire::NO_NUL))]
    pub text: String,
    /// In this project only: its name or id, a segment of an address.
    #[serde(default)]
    #[schemars(length(min = 1, max = SEARCH_NAME_LENGTH), regex(pattern = wire::SEGMENT))]
    pub project: Option<String>,
    /// Of these types only.
    #[serde(default)]
    #[schemars(length(max = SEARCH_NAMES_LIMIT), inner(length(min = 1, max = SEARCH_NAME_LENGTH), regex(pattern = wire::NO_NUL)))]
    pub work_item_types: Vec<String>,
    /// In these states only.
    #[serde(default)]
    #[schemars(length(max = SEARCH_NAMES_LIMIT), inner(length(min = 1, max = SEARCH_NAME_LENGTH), regex(pattern = wire::NO_NUL)))]
    pub states: Vec<String>,
    /// At most this many work items, 1 to 1000.
    #[serde(default = "default_search_limit")]
    #[schemars(range(min = 1, max = SEARCH_LIMIT))]
    pub limit: u32,
}

const fn default_search_limit() -> u32 {
    SEARCH_LIMIT
}

/// A service-hook body as received, with its secret hashed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookEvent {
    /// As received, but for values that cannot be represented; not looked into before `handle_events`.
    pub payload: Box<RawValue>,
    /// SHA-256 of the shared secret, lowercase hex.
    pub secret_sha256: Option<String>,
}

impl PartialEq for HookEvent {
    fn eq(&self, other: &Self) -> bool {
        self.payload.get() == other.payload.get() && self.secret_sha256 == other.secret_sha256
    }
}

/// A Discord interaction.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interaction {
    /// Discord's application id.
    pub application_id: String,
    /// Sealed with the keyring; never shown.
    pub sealed_token: String,
    /// The message to edit, if any.
    pub message_id: Option<String>,
}

impl Interaction {
    /// Where the token of the job with this id is sealed for.
    #[must_use]
    pub const fn token_place(job: &str) -> Place<'_> {
        Place { table: "jobs", column: INTERACTION_TOKEN, row: job }
    }
}

impl fmt::Debug for Interaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interaction").field("application_id", &self.application_id).finish_non_exhaustive()
    }
}

/// The column, as sealed values have it, of an interaction's token.
pub const INTERACTION_TOKEN: &str = "payload.interaction.token";

/// The interaction of a stored [`Request`]; nothing else of it is built, whatever it is.
#[must_use]
pub fn interaction_of(payload: &str) -> Option<Interaction> {
    #[derive(Deserialize)]
    struct Payload {
        interaction: Option<Interaction>,
    }
    serde_json::from_str::<Payload>(payload).ok()?.interaction
}

/// Supplies the choice that a job waits for (routing key `configure`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "configure")]
pub struct Configure {
    /// The number of this schema.
    #[serde(deserialize_with = "wire::control_schema")]
    #[schemars(extend("const" = SCHEMA))]
    pub schema: i64,
    /// The waiting job.
    #[schemars(with = "String", regex(pattern = wire::UUID), extend("format" = "uuid"))]
    pub job_id: JobId,
    /// The chosen account id.
    #[serde(deserialize_with = "wire::account")]
    #[schemars(length(min = 1, max = ACCOUNT_LENGTH), regex(pattern = wire::NO_NUL))]
    pub account: String,
}

/// Cancels a job by its producer's key (routing key `cancel`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "cancel")]
pub struct Cancel {
    /// The number of this schema.
    #[serde(deserialize_with = "wire::control_schema")]
    #[schemars(extend("const" = SCHEMA))]
    pub schema: i64,
    /// The producer.
    #[serde(deserialize_with = "wire::source")]
    #[schemars(length(min = 1, max = SOURCE_LENGTH), regex(pattern = wire::NO_NUL))]
    pub source: String,
    /// Its key.
    #[serde(deserialize_with = "wire::dedupe_key")]
    #[schemars(length(min = 1, max = KEY_LENGTH), regex(pattern = wire::NO_NUL))]
    pub dedupe_key: String,
}

/// "Look at this row": all that the worker publishes to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeUp {
    /// The row.
    pub job_id: JobId,
}
