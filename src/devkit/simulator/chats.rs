//! The parts of the [`State`] document that Slack, Teams, Discord's webhooks and the mail server have.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::State;

/// The simulated Slack.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slack {
    /// Bot tokens that are let in.
    pub tokens: BTreeSet<String>,
    /// Messages received, oldest first, by channel id: the bodies as sent. A channel that is not here does not exist.
    pub channels: BTreeMap<String, Vec<Value>>,
}

/// A workflow of Teams with a webhook.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamsHook {
    /// `sig` in the query.
    pub signature: String,
    /// The bodies received, oldest first.
    #[serde(default)]
    pub received: Vec<Value>,
}

/// The webhook of a Discord channel.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscordHook {
    /// The last part of its address.
    pub token: String,
    /// Messages, oldest first.
    #[serde(default)]
    pub posted: Vec<Posted>,
}

/// A click in Discord that can be answered.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Click {
    /// Whose it was.
    pub application_id: String,
    /// Over: answered as Discord does after 15 minutes.
    #[serde(default)]
    pub ended: bool,
    /// Messages, oldest first; the first one that is there from the beginning goes by `@original` too.
    #[serde(default)]
    pub posted: Vec<Posted>,
}

/// A message that came through a webhook's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Posted {
    /// A snowflake.
    pub id: String,
    /// The text.
    pub content: String,
    /// As sent.
    #[serde(default)]
    pub flags: u64,
    /// As sent.
    #[serde(default)]
    pub allowed_mentions: Value,
    /// How often it was edited.
    #[serde(default)]
    pub edits: u32,
}

/// The simulated mail server.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailServer {
    /// Passwords by user; empty: nobody need sign in.
    pub users: BTreeMap<String, String>,
    /// Mails taken, oldest first.
    pub received: Vec<Mail>,
}

/// A mail that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// Of the envelope.
    pub from: String,
    /// Of the envelope.
    pub to: Vec<String>,
    /// Headers and body, as they came, without the stuffing of dots.
    pub content: String,
}

impl State {
    /// With an empty Slack channel and a bot token that may write to it.
    #[must_use]
    pub fn slack(mut self, token: &str, channel: &str) -> Self {
        self.slack.tokens.insert(token.to_owned());
        self.slack.channels.entry(channel.to_owned()).or_default();
        self
    }

    /// With a workflow of Teams at `/teams/NAME?sig=SIGNATURE`.
    #[must_use]
    pub fn teams(mut self, name: &str, signature: &str) -> Self {
        self.teams.insert(name.to_owned(), TeamsHook { signature: signature.to_owned(), received: Vec::new() });
        self
    }

    /// With a Discord channel's webhook at `/api/webhooks/ID/TOKEN`.
    #[must_use]
    pub fn discord_webhook(mut self, id: &str, token: &str) -> Self {
        self.discord.webhooks.insert(id.to_owned(), DiscordHook { token: token.to_owned(), posted: Vec::new() });
        self
    }

    /// With a click that was answered with one message already, `original`, if that is given.
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
        let click = Click { application_id: application_id.to_owned(), ended: false, posted };
        self.discord.clicks.insert(token.to_owned(), click);
        self
    }

    /// With a user of the mail server.
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
