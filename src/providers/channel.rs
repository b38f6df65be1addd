//! What messages go through. To add a way: one file with an `impl Channel`, one line in [`channels`].

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::ProviderSettings;
use super::discord::Discord;
use super::discord_webhook::DiscordWebhook;
use super::email::Email;
use super::http::HttpClient;
use super::http_fault::{HttpFault, Provider};
use super::slack::Slack;
use super::smtp::SmtpServer;
use super::teams::Teams;
use super::webhook::Webhook;
use crate::fault::{Certainty, Class, Fault};
use crate::job::EffectClass;

/// ★ The list of channels. Mail goes out through `smtp`.
#[must_use]
pub fn channels(http: &HttpClient, settings: &ProviderSettings, smtp: Option<SmtpServer>) -> Vec<Box<dyn Channel>> {
    vec![
        Box::new(Discord::new(http.clone(), &settings.discord_api)),
        Box::new(DiscordWebhook::new(http.clone())),
        Box::new(Email::new(smtp)),
        Box::new(Slack::new(http.clone(), &settings.slack_api)),
        Box::new(Teams::new(http.clone())),
        Box::new(Webhook::new(http.clone())),
    ]
}

/// A way to tell people something.
pub trait Channel: Send + Sync {
    /// Durable: the `kind` of destinations in Postgres. Never renamed.
    fn kind(&self) -> &'static str;

    /// What repeating a delivery to this destination can do.
    fn class(&self, config: &ChannelConfig) -> EffectClass;

    /// For how long after the first intent the other side dedupes on our key; `None` is without end (or not at all, for a
    /// channel that is not keyed).
    fn keyed_for(&self, config: &ChannelConfig) -> Option<Duration>;

    /// `message` as this channel sends it: escaped and within its limits. Depends on nothing else, so it can be stored and
    /// sent again byte for byte.
    fn render(&self, message: &Message) -> Rendered;

    /// What a destination has in common with others that the other side may limit together with it: stored and shown, so never a
    /// secret. `None` where it limits each by itself.
    fn shared_limit(&self, _config: &ChannelConfig) -> Option<String> {
        None
    }

    /// Whether a destination can be delivered to.
    ///
    /// # Errors
    /// [`BadConfig`] says what would be right.
    fn check_config(&self, config: &ChannelConfig) -> Result<(), BadConfig>;

    /// Delivers once. Each channel's file says what proves a delivery; anything else is a fault.
    ///
    /// # Errors
    /// [`ChannelFault`], whose certainty says whether the message may have been delivered.
    fn deliver<'a>(&'a self, delivery: Delivery<'a>) -> BoxFuture<'a, Result<Delivered, ChannelFault>>;
}

/// A destination's settings.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// What may be shown: its shape is the channel's business.
    pub public: Value,
    /// What may not (a bot's token, a signing secret).
    pub secret: Option<SecretString>,
    /// The secret before the present one, while it is being replaced.
    pub previous_secret: Option<SecretString>,
}

/// What is to be told, as data; no part of it is escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The kind of event, dotted: `group.assignee_changed`.
    #[serde(rename = "type")]
    pub event: String,
    /// When it happened.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub happened_at: Option<OffsetDateTime>,
    /// One line.
    pub title: String,
    /// Further lines.
    #[serde(default)]
    pub lines: Vec<String>,
    /// The same for machines: organization, group, work item, from, to.
    #[serde(default)]
    pub details: Value,
}

/// A message in a channel's own form, to be stored and sent as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rendered(pub String);

/// One delivery.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// Where to.
    pub config: &'a ChannelConfig,
    /// What.
    pub rendered: &'a Rendered,
    /// The effect's key (52 characters of lowercase base32), the same for all attempts.
    pub key: &'a str,
    /// The effect's class as judged for this attempt.
    pub class: EffectClass,
    /// When the call must be over, by the monotonic clock.
    pub deadline: Instant,
    /// Whether an earlier attempt with the same key may have gone through.
    pub repeated: bool,
    /// Recipients that earlier attempts have delivered to, as [`Rest::served`] named them: they get nothing again.
    pub served: &'a [String],
}

impl<'a> Delivery<'a> {
    /// A first attempt, to everybody.
    #[must_use]
    pub const fn first(
        config: &'a ChannelConfig,
        rendered: &'a Rendered,
        key: &'a str,
        class: EffectClass,
        deadline: Instant,
    ) -> Self {
        Self { config, rendered, key, class, deadline, repeated: false, served: &[] }
    }
}

/// What came of a delivery that was proven.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The other side's name for the message.
    pub provider_ref: Option<String>,
    /// Recipients that are refused for good; the others have the message. Empty for a channel whose destinations have one
    /// recipient.
    pub refused: Vec<RefusedRecipient>,
    /// What is still to be done, where some recipients are refused for now.
    pub rest: Option<Rest>,
}

impl Delivered {
    /// All of it, to a destination's only recipient.
    #[must_use]
    pub const fn whole(provider_ref: Option<String>) -> Self {
        Self { provider_ref, refused: Vec::new(), rest: None }
    }
}

/// A recipient who does not get a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecipient {
    /// Their address.
    pub to: String,
    /// What the other side said: scrubbed and short.
    pub said: String,
}

/// The unfinished part of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub struct Rest {
    /// All recipients who have the message by now, those of earlier attempts included: the next [`Delivery::served`].
    pub served: Vec<String>,
    /// Who does not have it yet, and why. Nothing of it is done.
    pub fault: Refusal,
}

/// A destination's settings that cannot work: says what would be right, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadConfig(pub String);

/// A message was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum ChannelFault {
    /// The destination's settings cannot work; nothing was sent.
    #[error("{provider}: the destination's settings cannot work")]
    Config {
        /// The channel.
        provider: &'static Provider,
        /// What would be right.
        #[source]
        problem: BadConfig,
    },
    /// The call failed.
    #[error(transparent)]
    Http(#[from] HttpFault),
    /// The other side refused in words of its own.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A refusal in the other side's own words: inside an answer that HTTP calls a success, or in another protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provider} said: {said}")]
pub struct Refusal {
    /// The channel.
    pub provider: &'static Provider,
    /// See [`Fault::code`].
    pub code: &'static str,
    /// Scrubbed.
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

/// A destination's public settings in their channel's shape.
pub(super) fn decode<'de, T: Deserialize<'de>>(public: &'de Value, right: &str) -> Result<T, BadConfig> {
    T::deserialize(public).map_err(|error| BadConfig(format!("{error}; right would be {right}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::scripted::client;

    #[test]
    fn no_two_channels_share_a_kind() {
        let mut kinds: Vec<_> = channels(&client(), &ProviderSettings::default(), None).iter().map(|c| c.kind()).collect();
        let count = kinds.len();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), count);
    }
}
