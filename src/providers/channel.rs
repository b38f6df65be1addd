//! Channels, which deliver messages. A new channel needs one file with an `impl Channel` and its
//! [`ChannelKind`], and one line in [`CHANNELS`].

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::http::HttpClient;
use super::http_fault::{HttpFault, Provider};
use super::kind::{ChannelKind, ChannelParts};
use super::{discord, email, google_chat, slack, teams, webhook};
use crate::fault::{Certainty, Class, Fault};
use crate::job::EffectClass;

/// ★ The list of channels. Settings, rates, names, and the contracts and simulators of the tests
/// derive from it.
pub static CHANNELS: &[&ChannelKind] = &[
    &discord::KIND,
    &discord::webhook::KIND,
    &email::KIND,
    &google_chat::KIND,
    &slack::KIND,
    &teams::KIND,
    &webhook::KIND,
];

/// Creates every channel.
#[must_use]
pub fn channels(mut parts: ChannelParts) -> Vec<Box<dyn Channel>> {
    CHANNELS
        .iter()
        .map(|kind| (kind.make)(&mut parts))
        .collect()
}

/// A channel, which delivers messages to people or programs.
pub trait Channel: Send + Sync {
    /// Returns the `kind` of destinations in Postgres. Stored, so never renamed.
    fn kind(&self) -> &'static str;

    /// Returns the class of a delivery to this destination, which states the effect of a
    /// repetition.
    fn class(&self, config: &ChannelConfig) -> EffectClass;

    /// Returns how long after the first intent the provider dedupes on the key. `None` means
    /// without end, or not at all for a channel that is not keyed.
    fn keyed_for(&self, _config: &ChannelConfig) -> Option<Duration> {
        None
    }

    /// Renders `message` as this channel sends it: escaped and within its limits. The result
    /// depends only on `message`, so it can be stored and sent again byte for byte.
    fn render(&self, message: &Message) -> Rendered;

    /// Returns the name of the provider's limit that a destination shares with others. It is
    /// stored and shown, so it is never a secret. `None` if the provider limits each destination
    /// separately.
    fn shared_limit(&self, _config: &ChannelConfig) -> Option<String> {
        None
    }

    /// Checks a destination's settings.
    ///
    /// # Errors
    /// [`BadConfig`] states what is expected.
    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig>;

    /// Makes one attempt to deliver. Each channel's module states what proves a delivery; anything
    /// else is a fault.
    ///
    /// # Errors
    /// [`ChannelFault`], whose certainty states whether the message may have been delivered.
    fn deliver<'a>(
        &'a self,
        delivery: Delivery<'a>,
    ) -> BoxFuture<'a, Result<Delivered, ChannelFault>>;
}

/// A destination's settings.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// The settings that may be shown. Each channel defines their shape.
    pub public: Value,
    /// The secret (a bot's token, a signing secret).
    pub secret: Option<SecretString>,
    /// The previous secret, during a rotation.
    pub previous_secret: Option<SecretString>,
}

impl ChannelConfig {
    /// Returns the secret; `right` states what it must be.
    pub(super) fn needed_secret(&self, right: &str) -> Result<&SecretString, BadConfig> {
        let secret = self.secret.as_ref();
        secret.ok_or_else(|| BadConfig(right.to_owned()))
    }

    /// Returns the address that is the secret; `right` states what it must be.
    pub(super) fn secret_address(&self, http: &HttpClient, right: &str) -> Result<Url, BadConfig> {
        http.parse_url(self.needed_secret(right)?.expose_secret())
            .map_err(|why| BadConfig(format!("{right}: {why}")))
    }
}

/// The content of a message as data. No part of it is escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The type of the event, dotted: `group.assignee_changed`.
    #[serde(rename = "type")]
    pub event: String,
    /// When the event happened.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub happened_at: Option<OffsetDateTime>,
    /// The title, one line.
    pub title: String,
    /// The lines after the title.
    #[serde(default)]
    pub lines: Vec<String>,
    /// The same content for programs: organization, group, work item, from, to.
    #[serde(default)]
    pub details: Value,
}

/// A message in a channel's own format, stored and sent unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rendered(pub String);

/// One delivery.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The destination's settings.
    pub config: &'a ChannelConfig,
    /// The message.
    pub rendered: &'a Rendered,
    /// The effect's key (52 characters of lowercase base32), the same for all attempts.
    pub key: &'a str,
    /// The effect's class for this attempt.
    pub class: EffectClass,
    /// The deadline of the call, by the monotonic clock.
    pub deadline: Instant,
    /// Whether an earlier attempt with the same key may have delivered the message.
    pub repeated: bool,
    /// The recipients of earlier attempts, as in [`Rest::served`]. They do not get the message
    /// again.
    pub served: &'a [String],
}

impl<'a> Delivery<'a> {
    /// Returns a first attempt, to all recipients.
    #[must_use]
    pub const fn first(
        config: &'a ChannelConfig,
        rendered: &'a Rendered,
        key: &'a str,
        class: EffectClass,
        deadline: Instant,
    ) -> Self {
        Self {
            config,
            rendered,
            key,
            class,
            deadline,
            repeated: false,
            served: &[],
        }
    }
}

/// The result of a proven delivery.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The provider's id of the message.
    pub provider_ref: Option<String>,
    /// The recipients that are refused permanently; the others have the message. Empty for a
    /// channel whose destinations have one recipient.
    pub refused: Vec<RefusedRecipient>,
    /// The remaining part of the delivery, if some recipients are refused temporarily.
    pub rest: Option<Rest>,
}

impl Delivered {
    /// Returns the result of a complete delivery.
    #[must_use]
    pub const fn whole(provider_ref: Option<String>) -> Self {
        Self {
            provider_ref,
            refused: Vec::new(),
            rest: None,
        }
    }
}

/// A recipient that does not get a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecipient {
    /// The recipient's address.
    pub to: String,
    /// The provider's reason, scrubbed and short.
    pub said: String,
}

/// The remaining part of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub struct Rest {
    /// All recipients that have the message, those of earlier attempts included: the next
    /// [`Delivery::served`].
    pub served: Vec<String>,
    /// The recipients that do not have it yet, and the reason. The message was not delivered to
    /// them.
    pub fault: Refusal,
}

/// Invalid settings of a destination. States what is expected, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// A message was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum ChannelFault {
    /// The destination's settings are invalid; nothing was sent.
    #[error("{provider}: the destination's settings are invalid")]
    Config {
        /// The channel.
        provider: &'static Provider,
        /// What is expected.
        #[source]
        problem: BadConfig,
    },
    /// The call failed.
    #[error(transparent)]
    Http(#[from] HttpFault),
    /// The provider refused the message, in its own format.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A refusal in the provider's own format: inside an answer with a successful HTTP status, or in
/// another protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {said}")]
pub struct Refusal {
    /// The channel.
    pub provider: &'static Provider,
    /// See [`Fault::code`].
    pub code: &'static str,
    /// The provider's reason, scrubbed.
    pub said: String,
    /// See [`Fault::class`].
    pub class: Class,
    /// See [`Fault::certainty`].
    pub certainty: Certainty,
    /// See [`Fault::hint`].
    pub hint: Cow<'static, str>,
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for ChannelFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Config { provider, .. } => provider.codes.bad_config,
            Self::Http(fault) => fault.code(),
            Self::Refused(refusal) => refusal.code,
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Config { .. } => Class::Permanent,
            Self::Http(fault) => fault.class(),
            Self::Refused(refusal) => refusal.class.clone(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Config { problem, .. } => format!("Correct the destination: {problem}."),
            Self::Http(fault) => fault.hint(),
            Self::Refused(refusal) => refusal.hint.clone().into_owned(),
        }
    }

    fn certainty(&self) -> Certainty {
        match self {
            Self::Config { .. } => Certainty::NotDone,
            Self::Http(fault) => fault.certainty(),
            Self::Refused(refusal) => refusal.certainty,
        }
    }

    fn limits_all(&self) -> bool {
        match self {
            Self::Http(fault) => fault.limits_all(),
            Self::Config { .. } | Self::Refused(_) => false,
        }
    }
}

/// Decodes a destination's public settings into their channel's shape.
pub(super) fn decode<'de, T: Deserialize<'de>>(
    public: &'de Value,
    right: &str,
) -> Result<T, BadConfig> {
    T::deserialize(public).map_err(|error| BadConfig(format!("{error}; use {right}")))
}

/// Returns the URL of `path` below the address of an API.
pub(super) fn api_url(http: &HttpClient, api: &str, path: &[&str]) -> Result<Url, BadConfig> {
    let mut url = http
        .parse_url(api)
        .map_err(|why| BadConfig(format!("the API's address is invalid: {why}")))?;
    url.path_segments_mut()
        .map_err(|()| BadConfig("the API's address must have a path".to_owned()))?
        .pop_if_empty()
        .extend(path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::scripted::parts;

    #[test]
    fn no_two_channels_share_a_kind() {
        let made = channels(parts());
        let mut kinds: Vec<_> = made.iter().map(|channel| channel.kind()).collect();
        let listed: Vec<_> = CHANNELS.iter().map(|kind| kind.name()).collect();
        assert_eq!(kinds, listed);
        let count = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), count);
    }
}
