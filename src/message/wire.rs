//! The messages of producers, as they are deserialized and as the source of their JSON Schema. A
//! limit that a type cannot express is stated next to its field for the schema, and checked in
//! `intake`.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::repair::repair;
use super::{
    ACCOUNT_LENGTH, EVENTS_LIMIT, KEY_LENGTH, NAME_LENGTH, NOTIFY_LIMIT, SCHEMA, SOURCE_LENGTH,
    Search, TOKEN_LENGTH,
};

/// Text without NUL, which Postgres cannot store. The syntax is ECMA-262, as in JSON Schema
/// patterns.
pub(super) const NO_NUL: &str = r"^[^\u0000]*$";
/// Text that can be one path segment of a URL: see [`is_segment`].
pub(super) const SEGMENT: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^. \u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
/// See [`is_discord_id`].
const DISCORD_ID: &str = "^[0-9]{1,20}$";
/// See [`is_interaction_token`].
const INTERACTION_TOKEN: &str = "^[0-9A-Za-z_=+:.-]*[0-9A-Za-z_=+:-][0-9A-Za-z_=+:.-]*$";
/// RFC 3339 in capitals. `format` checks that the day exists in the calendar.
pub(super) const DATE_TIME: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";
/// RFC 9562, with hyphens.
pub(super) const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// Work for one organization: service-hook events to handle, work items to search for.
/// Unknown fields are refused, so that a misspelled field is not silently ignored.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "job")]
pub(super) struct Job {
    /// Version of this schema. A job with a newer version waits for a worker that supports it.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: i64,
    /// Name of the producing system. Required here or as the AMQP property `app_id`.
    #[expect(
        dead_code,
        reason = "named so that the key is known here; read before the shape is"
    )]
    #[schemars(length(min = 1, max = SOURCE_LENGTH), regex(pattern = NO_NUL))]
    source: Option<String>,
    /// Together with `source`, unique while the job is kept (by default until 30 days after it
    /// ended). The same message again is the same job; a different one is refused. Required here
    /// or as the AMQP property `message_id`.
    #[expect(
        dead_code,
        reason = "named so that the key is known here; read before the shape is"
    )]
    #[schemars(length(min = 1, max = KEY_LENGTH), regex(pattern = NO_NUL))]
    dedupe_key: Option<String>,
    /// The tenant's slug.
    #[schemars(length(min = 1, max = NAME_LENGTH), regex(pattern = NO_NUL))]
    pub(super) organization: String,
    /// Id of the Azure DevOps account. Without one, the job answers with the accounts to choose
    /// from, and waits.
    #[serde(default)]
    #[schemars(length(min = 1, max = ACCOUNT_LENGTH), regex(pattern = NO_NUL))]
    pub(super) account: Option<String>,
    /// Name of the identity to act as. Without one, the installation's identity.
    #[serde(default)]
    #[schemars(length(min = 1, max = ACCOUNT_LENGTH), regex(pattern = NO_NUL))]
    pub(super) identity: Option<String>,
    /// Search for work items.
    #[serde(default)]
    pub(super) search: Option<Search>,
    /// Service-hook events as received.
    #[serde(default)]
    #[schemars(length(max = EVENTS_LIMIT))]
    pub(super) events: Vec<Event>,
    /// Names of destinations. Without a list, the organization's defaults; with an empty list,
    /// none.
    #[serde(default)]
    #[schemars(length(max = NOTIFY_LIMIT), inner(length(min = 1, max = ACCOUNT_LENGTH), regex(pattern = NO_NUL)))]
    pub(super) notify: Option<Vec<String>>,
    /// The Discord interaction to answer.
    #[serde(default)]
    pub(super) interaction: Option<Interaction>,
    /// The job does not start before this time.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", regex(pattern = DATE_TIME), extend("format" = "date-time"))]
    pub(super) not_before: Option<OffsetDateTime>,
    /// The job is parked as `deadline_exceeded` after this time.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", regex(pattern = DATE_TIME), extend("format" = "date-time"))]
    pub(super) deadline: Option<OffsetDateTime>,
}

/// A service-hook event as received.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    /// The body of the service hook: any JSON value.
    #[schemars(with = "Value")]
    pub(super) payload: Box<RawValue>,
    /// The shared secret sent with the event. It is replaced by its SHA-256 before anything is
    /// stored.
    #[serde(default, deserialize_with = "hook_secret")]
    pub(super) shared_secret: Option<String>,
}

/// A Discord interaction. Its token is stored sealed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Interaction {
    /// Discord's application id.
    #[schemars(regex(pattern = DISCORD_ID))]
    pub(super) application_id: String,
    /// The interaction's token as issued by Discord: a credential.
    #[schemars(length(min = 1, max = TOKEN_LENGTH), regex(pattern = INTERACTION_TOKEN))]
    pub(super) token: String,
    /// The message to edit, if any.
    #[serde(default)]
    #[schemars(regex(pattern = "^([0-9]{1,20}|@original)$"))]
    pub(super) message_id: Option<String>,
}

/// Deserializes the schema version of a control message; only [`SCHEMA`] is valid.
pub(super) fn control_schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let schema = i64::deserialize(deserializer)?;
    if schema == SCHEMA {
        Ok(schema)
    } else {
        Err(serde::de::Error::custom(format!("expected {SCHEMA}")))
    }
}

pub(super) fn source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::<D, SOURCE_LENGTH>(deserializer)
}

pub(super) fn dedupe_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::<D, KEY_LENGTH>(deserializer)
}

pub(super) fn account<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::<D, ACCOUNT_LENGTH>(deserializer)
}

/// Deserializes a hook's secret. One that cannot be represented is repaired: no account has that
/// secret, so only its event is ignored.
fn hook_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let given = Box::<RawValue>::deserialize(deserializer)?;
    // The parser's own error is dropped: it could repeat part of a secret.
    serde_json::from_str(&repair(given.get()).text)
        .map_err(|_| serde::de::Error::custom("expected a string"))
}

fn text<'de, D: Deserializer<'de>, const LIMIT: usize>(
    deserializer: D,
) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    check_text(&text, LIMIT).map_err(serde::de::Error::custom)?;
    Ok(text)
}

/// Checks that a text can be stored. The error states what was expected.
pub(super) fn check_text(text: &str, limit: usize) -> Result<(), String> {
    if text.is_empty() || text.chars().count() > limit {
        return Err(format!("expected 1 to {limit} characters"));
    }
    if text.contains('\0') {
        return Err("NUL and invalid UTF-8 cannot be stored; remove them".to_owned());
    }
    Ok(())
}

/// Returns whether a text is a single path segment of a URL. The URL standard
/// (<https://url.spec.whatwg.org/#path-state>) drops tabs, line ends and segments of dots, and
/// some servers drop blanks, which would change the address.
#[must_use]
pub fn is_segment(text: &str) -> bool {
    !text.contains(char::is_control) && text.contains(|c| c != '.' && c != ' ')
}

/// Returns whether the text has the form of a Discord id
/// (<https://discord.com/developers/docs/reference#snowflakes>).
#[must_use]
pub fn is_discord_id(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether the text has the form of an interaction's token. Any other text could change
/// the address.
#[must_use]
pub fn is_interaction_token(text: &str) -> bool {
    let is_of_tokens =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '+' | ':');
    text.chars().all(is_of_tokens) && text.contains(|c| c != '.')
}
