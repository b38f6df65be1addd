//! The parts of the [`State`] document for chats and the mail server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::state::State;
use crate::providers::kind::ChannelKind;
use crate::providers::simulated::Room;

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
    /// Adds an empty room of a channel, and the token or signature that may write to it.
    #[must_use]
    pub fn room(mut self, kind: &ChannelKind, name: &str, secret: &str) -> Self {
        let room = Room {
            secret: secret.to_owned(),
            ..Room::default()
        };
        let rooms = self.rooms.entry(kind.name().to_owned()).or_default();
        rooms.insert(name.to_owned(), room);
        self
    }

    /// Returns the bodies of the messages in a room, oldest first. None, if there is no such room.
    #[must_use]
    pub fn received(&self, kind: &ChannelKind, name: &str) -> &[Value] {
        let room = self
            .rooms
            .get(kind.name())
            .and_then(|rooms| rooms.get(name));
        room.map_or(&[], |room| &room.received)
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
        for (kind, mut rooms) in std::mem::take(&mut other.rooms) {
            self.rooms.entry(kind).or_default().append(&mut rooms);
        }
        self.discord.webhooks.append(&mut other.discord.webhooks);
        self.discord.clicks.append(&mut other.discord.clicks);
        self.mail.users.append(&mut other.mail.users);
        self.mail.received.append(&mut other.mail.received);
    }
}
