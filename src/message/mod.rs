//! The wire format: the messages of producers ([`Request`], [`Configure`], [`Cancel`]), the
//! worker's messages to itself ([`WakeUp`]) and its announcements ([`Outcome`], built from the
//! [`Facts`] that `store` keeps). [`decode_intake`] decodes an intake message.

mod about;
mod checks;
mod discarded;
mod edited;
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
pub use discarded::{Discarded, JobKey};
pub use edited::{Inputs, NotEdited, decode_edited, kept, without_secrets};
pub use headers::{DELIVERY_COUNTS, allowed_headers};
pub use intake::{
    Envelope, Intake, Newer, canonical_digest, check_intake, decode_control, decode_intake,
};
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
/// The deepest nesting of arrays and objects in a message.
pub const DEPTH_LIMIT: usize = 64;
/// The maximum number of events of one job.
pub const EVENTS_LIMIT: usize = 200;
/// The maximum number of destinations of one job.
pub const NOTIFY_LIMIT: usize = 50;
/// The maximum number of work items of one search.
pub const SEARCH_LIMIT: u32 = 1000;
/// The longest `source`, in characters.
pub const SOURCE_LENGTH: usize = 64;
/// The longest dedupe key, in characters.
pub const KEY_LENGTH: usize = 255;
/// The longest slug of an organization, in characters.
pub const NAME_LENGTH: usize = 64;
/// The longest account id, and the longest name of an identity or a destination, in characters.
pub const ACCOUNT_LENGTH: usize = 255;
/// The longest search text, in characters.
pub const SEARCH_LENGTH: usize = 1000;
/// The longest project, work item type or state in a search, in characters.
pub const SEARCH_NAME_LENGTH: usize = 255;
/// The maximum number of work item types in one search, and of states.
pub const SEARCH_NAMES_LIMIT: usize = 50;
/// The longest interaction token, in characters.
pub const TOKEN_LENGTH: usize = 1024;
/// The longest time by which `not_before` may delay a job.
pub const LONGEST_DELAY: time::Duration = time::Duration::days(30);
/// The largest AMQP header table, in bytes.
pub const HEADERS_LIMIT: usize = 8 << 10;

/// Returns the place for which the raw bytes of a job with a newer schema are sealed.
#[must_use]
pub const fn sealed_place(job: &str) -> Place<'_> {
    Place {
        table: "jobs",
        column: "sealed_payload",
        row: job,
    }
}

/// A dispatch job as stored: the intake message with its secrets hashed or sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Schema version of the message.
    pub schema: i64,
    /// The producer.
    pub source: String,
    /// Unique per producer for as long as the job is kept.
    pub dedupe_key: String,
    /// The tenant's slug.
    pub organization: String,
    /// Azure DevOps account id; without one, the job waits for configuration.
    pub account: Option<String>,
    /// Name of the identity to act as; without one, the installation's identity.
    pub identity: Option<String>,
    /// The search for work items.
    pub search: Option<Search>,
    /// Service-hook events.
    pub events: Vec<HookEvent>,
    /// Names of destinations. Without a list, the organization's defaults; with an empty list,
    /// none.
    pub notify: Option<Vec<String>>,
    /// The Discord interaction to answer.
    pub interaction: Option<Interaction>,
    /// The earliest time to start.
    #[serde(with = "time::serde::rfc3339::option")]
    pub not_before: Option<OffsetDateTime>,
    /// The time after which the job is parked instead of run.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deadline: Option<OffsetDateTime>,
}

/// A search for work items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Search text, in the syntax of Azure DevOps.
    #[schemars(length(min = 1, max = SEARCH_LENGTH), regex(pattern = wire::NO_NUL))]
    pub text: String,
    /// Restricts the search to this project: its name or id, a single URL path segment.
    #[serde(default)]
    #[schemars(length(min = 1, max = SEARCH_NAME_LENGTH), regex(pattern = wire::SEGMENT))]
    pub project: Option<String>,
    /// Restricts the search to these work item types.
    #[serde(default)]
    #[schemars(length(max = SEARCH_NAMES_LIMIT), inner(length(min = 1, max = SEARCH_NAME_LENGTH), regex(pattern = wire::NO_NUL)))]
    pub work_item_types: Vec<String>,
    /// Restricts the search to these states.
    #[serde(default)]
    #[schemars(length(max = SEARCH_NAMES_LIMIT), inner(length(min = 1, max = SEARCH_NAME_LENGTH), regex(pattern = wire::NO_NUL)))]
    pub states: Vec<String>,
    /// Maximum number of work items, 1 to 1000.
    #[serde(default = "default_search_limit")]
    #[schemars(range(min = 1, max = SEARCH_LIMIT))]
    pub limit: u32,
}

const fn default_search_limit() -> u32 {
    SEARCH_LIMIT
}

/// A service-hook event as received, with its shared secret hashed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HookEvent {
    /// The body as received, except for values that cannot be represented. Not parsed before
    /// `handle_events`.
    pub payload: Box<RawValue>,
    /// SHA-256 of the shared secret, in lowercase hex.
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
    /// The token, sealed with the keyring; never displayed.
    pub sealed_token: String,
    /// The message to edit, if any.
    pub message_id: Option<String>,
}

impl Interaction {
    /// Returns the place for which the interaction token of this job is sealed.
    #[must_use]
    pub const fn token_place(job: &str) -> Place<'_> {
        Place {
            table: "jobs",
            column: INTERACTION_TOKEN,
            row: job,
        }
    }
}

impl fmt::Debug for Interaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interaction")
            .field("application_id", &self.application_id)
            .finish_non_exhaustive()
    }
}

/// The column name under which an interaction's token is sealed.
pub const INTERACTION_TOKEN: &str = "payload.interaction.token";

/// Returns the interaction of a stored [`Request`]. Deserializes no other field, so other fields
/// may have any form.
#[must_use]
pub fn interaction_of(payload: &str) -> Option<Interaction> {
    #[derive(Deserialize)]
    struct Payload {
        interaction: Option<Interaction>,
    }
    serde_json::from_str::<Payload>(payload).ok()?.interaction
}

/// Supplies the account that a job waits for (routing key `configure`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "configure")]
pub struct Configure {
    /// Version of this schema.
    #[serde(deserialize_with = "wire::control_schema")]
    #[schemars(extend("const" = SCHEMA))]
    pub schema: i64,
    /// Id of the waiting job.
    #[schemars(with = "String", regex(pattern = wire::UUID), extend("format" = "uuid"))]
    pub job_id: JobId,
    /// Id of the chosen Azure DevOps account.
    #[serde(deserialize_with = "wire::account")]
    #[schemars(length(min = 1, max = ACCOUNT_LENGTH), regex(pattern = wire::NO_NUL))]
    pub account: String,
}

/// Cancels a job by its source and dedupe key (routing key `cancel`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "cancel")]
pub struct Cancel {
    /// Version of this schema.
    #[serde(deserialize_with = "wire::control_schema")]
    #[schemars(extend("const" = SCHEMA))]
    pub schema: i64,
    /// The source of the job.
    #[serde(deserialize_with = "wire::source")]
    #[schemars(length(min = 1, max = SOURCE_LENGTH), regex(pattern = wire::NO_NUL))]
    pub source: String,
    /// The dedupe key of the job.
    #[serde(deserialize_with = "wire::dedupe_key")]
    #[schemars(length(min = 1, max = KEY_LENGTH), regex(pattern = wire::NO_NUL))]
    pub dedupe_key: String,
}

/// Asks a worker to look at a job's row. The only kind of message that the worker publishes to
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeUp {
    /// Id of the job.
    pub job_id: JobId,
}
