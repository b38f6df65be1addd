//! What producers put on the wire, as it is read and as its JSON Schema is made of. Limits that a type cannot say stand beside its
//! field for the schema, and are checked in `intake`.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::repair::repair;
use super::{ACCOUNT_LENGTH, EVENTS_LIMIT, KEY_LENGTH, NAME_LENGTH, NOTIFY_LIMIT, SCHEMA, SOURCE_LENGTH, Search, TOKEN_LENGTH};

/// Text without NUL, which Postgres cannot store. ECMA-262, as JSON Schema's patterns are.
pub(super) const NO_NUL: &str = r"^[^\u0000]*$";
/// What can stand in an address as one segment: see [`is_segment`].
pub(super) const SEGMENT: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^. \u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
/// See [`is_discord_id`].
const DISCORD_ID: &str = "^[0-9]{1,20}$";
/// See [`is_interaction_token`].
const INTERACTION_TOKEN: &str = "^[0-9A-Za-z_=+:.-]*[0-9A-Za-z_=+:-][0-9A-Za-z_=+:.-]*$";
/// RFC 3339 in capitals. That the day is in the calendar is left to `format`.
pub(super) const DATE_TIME: &str =
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";
/// RFC 9562, with hyphens.
pub(super) const UUID: &str = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$";

/// Work for one organization: service-hook events to take, work items to search for. A field that is not here is refused, so
/// that a misspelt one is not overlooked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "job")]
pub(super) struct Job {
    /// The number of this schema. A job of a newer one waits for a worker that knows it.
    #[schemars(extend("const" = SCHEMA))]
    pub(super) schema: i64,
    /// The producer. Required here or as the AMQP property `app_id`.
    #[expect(dead_code, reason = "named so that the key is known here; read before the shape is")]
    #[schemars(length(min = 1, max = SOURCE_LENGTH), regex(pattern = NO_NUL))]
    source: Option<String>,
    /// With `source`, unique while its job is kept, by default until 30 days after its end: the same message again is the same
    /// job, another one is refused. Required here or as the AMQP property `message_id`.
    #[expect(dead_code, reason = "named so that the key is known here; read before the shape is")]
    #[schemars(length(min = 1, max = KEY_LENGTH), regex(pattern = NO_NUL))]
    dedupe_key: Option<String>,
    /// The tenant's slug.
    #[schemars(length(min = 1, max = NAME_LENGTH), regex(pattern = NO_NUL))]
    pub(super) organization: String,
    /// Id of the Azure DevOps account. Without one the job answers with what there is to choose from, and waits.
    #[serde(default)]
    #[schemars(length(min = 1, max = ACCOUNT_LENGTH), regex(pattern = NO_NUL))]
    pub(super) account: Option<String>,
    /// Name of the identity to act as; otherwise the installation's.
    #[serde(default)]
    #[schemars(length(min = 1, max = ACCOUNT_LENGTH), regex(pattern = NO_NUL))]
    pub(super) identity: Option<String>,
    /// Work items to search for.
    #[serde(default)]
    pub(super) search: Option<Search>,
    /// Service-hook bodies as received.
    #[serde(default)]
    #[schemars(length(max = EVENTS_LIMIT))]
    pub(super) events: Vec<Event>,
    /// Names of destinations; none means the organization's defaults, an empty list nobody.
    #[serde(default)]
    #[schemars(length(max = NOTIFY_LIMIT), inner(length(min = 1, max = ACCOUNT_LENGTH), regex(pattern = NO_NUL)))]
    pub(super) notify: Option<Vec<String>>,
    /// Where a person clicked in Discord.
    #[serde(default)]
    pub(super) interaction: Option<Interaction>,
    /// Not to start before this time.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", regex(pattern = DATE_TIME), extend("format" = "date-time"))]
    pub(super) not_before: Option<OffsetDateTime>,
    /// Parked as `deadline_exceeded` after this time.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", regex(pattern = DATE_TIME), extend("format" = "date-time"))]
    pub(super) deadline: Option<OffsetDateTime>,
}

/// A service-hook body as received.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Event {
    /// The body, whatever it holds.
    #[schemars(with = "Value")]
    pub(super) payload: Box<RawValue>,
    /// The secret it came with; replaced by its SHA-256 before anything is stored.
    #[serde(default, deserialize_with = "hook_secret")]
    pub(super) shared_secret: Option<String>,
}

/// A Discord interaction. It is stored sealed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Interaction {
    /// Discord's application id.
    #[schemars(regex(pattern = DISCORD_ID))]
    pub(super) application_id: String,
    /// The interaction's token as Discord gave it: a credential.
    #[schemars(length(min = 1, max = TOKEN_LENGTH), regex(pattern = INTERACTION_TOKEN))]
    pub(super) token: String,
    /// The message to edit, if any.
    #[serde(default)]
    #[schemars(regex(pattern = "^([0-9]{1,20}|@original)$"))]
    pub(super) message_id: Option<String>,
}

/// The schema of a control message: there is one.
pub(super) fn control_schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let schema = i64::deserialize(deserializer)?;
    if schema == SCHEMA { Ok(schema) } else { Err(serde::de::Error::custom(format!("right is {SCHEMA}"))) }
}

/// A producer's name.
pub(super) fn source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::<D, SOURCE_LENGTH>(deserializer)
}

/// A producer's key.
pub(super) fn dedupe_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::<D, KEY_LENGTH>(deserializer)
}

/// An account's id.
pub(super) fn account<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text::<D, ACCOUNT_LENGTH>(deserializer)
}

/// A hook's secret. A spoiled one is repaired: no account has it, and its event alone is ignored.
fn hook_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let given = Box::<RawValue>::deserialize(deserializer)?;
    // Not the parser's words, which would repeat what may be a secret.
    serde_json::from_str(&repair(given.get()).text).map_err(|_| serde::de::Error::custom("expected a string"))
}

fn text<'de, D: Deserializer<'de>, const LIMIT: usize>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    check_text(&text, LIMIT).map_err(serde::de::Error::custom)?;
    Ok(text)
}

/// Whether a text can be stored; the error says what would be right.
pub(super) fn check_text(text: &str, limit: usize) -> Result<(), String> {
    if text.is_empty() || text.chars().count() > limit {
        return Err(format!("right is 1 to {limit} characters"));
    }
    if text.contains('\0') {
        return Err("NUL cannot be stored, nor what is not UTF-8; leave it out".to_owned());
    }
    Ok(())
}

/// Whether a text is one segment wherever it stands in an address. The URL standard (<https://url.spec.whatwg.org/#path-state>)
/// drops tabs, line ends and segments of dots, and some servers drop blanks: the address would be another one.
#[must_use]
pub fn is_segment(text: &str) -> bool {
    !text.contains(char::is_control) && text.contains(|c| c != '.' && c != ' ')
}

/// Whether it has the form of a Discord id (<https://discord.com/developers/docs/reference#snowflakes>).
#[must_use]
pub fn is_discord_id(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether it has the form of an interaction's token. Anything else could lead to another address.
#[must_use]
pub fn is_interaction_token(text: &str) -> bool {
    let is_of_tokens = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '+' | ':');
    text.chars().all(is_of_tokens) && text.contains(|c| c != '.')
}
