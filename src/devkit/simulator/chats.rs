//! The parts of the [`State`] document for Slack, Teams, Discord's webhooks and the mail server.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::State;

/// The simulated Slack.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slack {
    /// Accepted bot tokens.
    pub tokens: BTreeSet<String>,
    /// Bodies of received messages, oldest first, by channel id. A channel that is not here does
    /// not exist.
    pub channels: BTreeMap<String, Vec<Value>>,
}

/// A Teams workflow with a webhook.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamsHook {
    /// The value of `sig` in the query.
    pub signature: String,
    /// Received bodies, oldest first.
    #[serde(default)]
    pub received: Vec<Value>,
}

/// The webhook of a Discord channel.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscordHook {
    /// The last part of its URL.
    pub token: String,
    /// Messages, oldest first.
    #[serde(default)]
    pub posted: Vec<Posted>,
}

/// A Discord interaction that can be answered.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Click {
    /// The application of the interaction.
    pub application_id: String,
    /// Whether it is expired, and answered as Discord does after 15 minutes.
    #[serde(default)]
    pub ended: bool,
    /// Messages, oldest first. The one present from the beginning, if any, is also named
    /// `@original`.
    #[serde(default)]
    pub posted: Vec<Posted>,
}

/// A message sent through a webhook's URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posted {
    /// A snowflake.
    pub id: String,
    /// The text.
    pub content: String,
    /// The value as sent.
    #[serde(default)]
    pub flags: u64,
    /// The value as sent.
    #[serde(default)]
    pub allowed_mentions: Value,
    /// The number of edits.
    #[serde(default)]
    pub edits: u32,
}

/// The simulated mail server.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailServer {
    /// Passwords by user. If empty, signing in is not required.
    pub users: BTreeMap<String, String>,
    /// Accepted mails, oldest first.
    pub received: Vec<Mail>,
}

/// An accepted mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// The sender in the envelope.
    pub from: String,
    /// The recipients in the envelope.
    pub to: Vec<String>,
    /// Headers and body as received, without dot-stuffing.
    pub content: String,
}

impl State {
    /// Adds an empty Slack channel and a bot token that may write to it.
    #[must_use]
    pub fn slack(mut self, token: &str, channel: &str) -> Self {
        self.slack.tokens.insert(token.to_owned());
        self.slack.channels.entry(channel.to_owned()).or_default();
        self
    }

    /// Adds a Teams workflow at `/teams/NAME?sig=SIGNATURE`.
    #[must_use]
    pub fn teams(mut self, name: &str, signature: &str) -> Self {
        self.teams.insert(
            name.to_owned(),
            TeamsHook {
                signature: signature.to_owned(),
                received: Vec::new(),
            },
        );
        self
    }

    /// Adds a Discord channel's webhook at `/api/webhooks/ID/TOKEN`.
    #[must_use]
    pub fn discord_webhook(mut self, id: &str, token: &str) -> Self {
        self.discord.webhooks.insert(
            id.to_owned(),
            DiscordHook {
                token: token.to_owned(),
                posted: Vec::new(),
            },
        );
        self
    }

    /// Adds an interaction that was already answered with the message `original`, if given.
    #[must_use]
    pub fn click(mut self, application_id: &str, token: &str, original: Option<&str>) -> Self {
        let message = |id: &str| Posted {
            id: id.to_owned(),
            content: "Working on it".to_owned(),
            flags: 0,
            allowed_mentions: Value::Null,
            edits: 0,
        };
        let posted = original.map(message).into_iter().collect();
        let click = Click {
            application_id: application_id.to_owned(),
            ended: false,
            posted,
        };
        self.discord.clicks.insert(token.to_owned(), click);
        self
    }

    /// Adds a user of the mail server.
    #[must_use]
    pub fn mail_user(mut self, user: &str, password: &str) -> Self {
        self.mail.users.insert(user.to_owned(), password.to_owned());
        self
    }

    pub(super) fn merge_chats(&mut self, other: &mut Self) {
        self.slack.tokens.append(&mut other.slack.tokens);
        self.slack.channels.append(&mut other.slack.channels);
        self.teams.append(&mut other.teams);
        self.discord.webhooks.append(&mut other.discord.webhooks);
        self.discord.clicks.append(&mut other.discord.clicks);
        self.mail.users.append(&mut other.mail.users);
        self.mail.received.append(&mut other.mail.received);
    }
}
