//! The state document, with all data of the simulated providers. Tests and the demo build one in
//! Rust and post it; `GET /_sim/state` returns the current one in the same form.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::chats::{Click, DiscordHook, MailServer};
pub use super::entra::{Entra, RefreshToken};
use crate::providers::simulated::Rooms;

/// All data. There is no `Debug`, because it contains tokens and signing secrets.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// People, by unique name (their sign-in address).
    pub users: BTreeMap<String, User>,
    /// Azure DevOps access tokens, by the token itself.
    pub tokens: BTreeMap<String, Token>,
    /// Microsoft Entra's clients and refresh tokens.
    pub entra: Entra,
    /// Azure DevOps organizations ("accounts" to the vendor), by name.
    pub accounts: BTreeMap<String, Account>,
    /// The states of each work item type, by the type's name.
    pub work_item_types: BTreeMap<String, Vec<WorkItemState>>,
    /// Work items, by [`work_item_key`].
    pub work_items: BTreeMap<String, WorkItem>,
    /// The simulated Discord.
    pub discord: Discord,
    /// Webhook receivers, by name.
    pub webhooks: BTreeMap<String, Webhook>,
    /// The rooms of the channels that simulate themselves, by kind.
    pub rooms: BTreeMap<String, Rooms>,
    /// The simulated mail server.
    pub mail: MailServer,
    /// Options of the simulator.
    pub options: Options,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The id of the identity and of the profile.
    pub id: Uuid,
    /// The display name. May contain any characters, including `<` and `>`.
    pub display_name: String,
    /// The e-mail address of record; may differ from the unique name, or be missing.
    #[serde(default)]
    pub mail_address: Option<String>,
    /// The subject descriptor.
    pub descriptor: String,
    /// `DOMAIN\user` of a person in an on-premises directory.
    #[serde(default)]
    pub login: Option<String>,
}

/// An access token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The unique name of the user it belongs to.
    pub user: String,
    /// Whether it is answered with 401.
    #[serde(default)]
    pub expired: bool,
    /// Whether it is answered with 203 and an HTML sign-in page.
    #[serde(default)]
    pub sign_in_page: bool,
}

/// An organization of Azure DevOps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The account's id, as in the list of accounts.
    pub id: Uuid,
    /// The id of its collection, as in service-hook events.
    pub collection_id: Uuid,
    /// Unique names of the members.
    #[serde(default)]
    pub members: BTreeSet<String>,
    /// Project ids by name.
    #[serde(default)]
    pub projects: BTreeMap<String, Uuid>,
}

/// A state of a work item type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkItemState {
    /// The name, such as `Active`.
    pub name: String,
    /// `Proposed`, `InProgress`, `Resolved`, `Completed` or `Removed`.
    pub category: String,
}

/// A work item with its whole history.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkItem {
    /// The project's name.
    pub project: String,
    /// The type's name.
    pub work_item_type: String,
    /// The title.
    pub title: String,
    /// The revisions, oldest first; never empty. The last is the current one.
    pub revisions: Vec<Revision>,
    /// The value of `System.AssignedTo` instead of the last revision's assignee, until an assignee
    /// is written.
    #[serde(default)]
    pub assigned_to_as_is: Option<Value>,
    /// Whether it is deleted, as if it had never existed.
    #[serde(default)]
    pub deleted: bool,
}

/// One revision of a work item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// The number, from 1.
    pub rev: i64,
    /// The state's name.
    pub state: String,
    /// The assignee's unique name.
    pub assigned_to: Option<String>,
    /// The unique name of the person who made this revision.
    pub changed_by: String,
    /// The time, strictly increasing over the revisions.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_date: OffsetDateTime,
}

/// The simulated Discord.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discord {
    /// Accepted bot tokens.
    pub tokens: BTreeSet<String>,
    /// Received messages, oldest first, by channel id. A channel that is not here does not exist.
    pub channels: BTreeMap<String, Vec<Message>>,
    /// Webhooks of channels, by id.
    pub webhooks: BTreeMap<String, DiscordHook>,
    /// Interactions that can be answered, by token.
    pub clicks: BTreeMap<String, Click>,
}

/// A message in a Discord channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// A snowflake.
    pub id: String,
    /// The text.
    pub content: String,
    /// The nonce as sent: a string, an integer or null.
    #[serde(default)]
    pub nonce: Value,
    /// The value as sent.
    #[serde(default)]
    pub allowed_mentions: Value,
    /// The time at which it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub timestamp: OffsetDateTime,
}

/// A webhook receiver.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The signing secret, `whsec_` and base64 (Standard Webhooks).
    pub secret: String,
    /// Whether it dedupes.
    pub mode: WebhookMode,
    /// The messages that took effect, oldest first.
    #[serde(default)]
    pub received: Vec<Delivered>,
    /// The `webhook-id`s seen.
    #[serde(default)]
    pub keys: BTreeSet<String>,
}

/// Whether a webhook receiver dedupes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookMode {
    /// It dedupes on `webhook-id`: a repeated one is answered with 200 and has no effect.
    Keyed,
    /// It does not dedupe: each message takes effect.
    Blind,
}

/// A webhook message that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivered {
    /// `webhook-id`.
    pub id: String,
    /// The body as received.
    pub body: String,
}

/// Options of the simulator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Delay before every answer of a provider, in milliseconds.
    pub latency_millis: u64,
    /// The number of users on one page of the graph.
    pub graph_page_size: usize,
    /// The `infoCode` of search answers. Any value but 0 comes without results.
    pub search_info_code: i64,
    /// The refusal of a PATCH whose `test /rev` fails.
    pub rev_mismatch: RevMismatch,
    /// How long Discord remembers a nonce, in seconds.
    pub nonce_seconds: i64,
    /// The format of assignees in events, unless the change states one.
    pub assignee_format: AssigneeFormat,
    /// Whether a refresh token is valid for one refresh only. At Microsoft Entra it is not.
    pub refresh_tokens_once: bool,
    /// The `expires_in` of access tokens that Entra issues, in seconds. They do not actually
    /// expire.
    pub access_token_seconds: u64,
    /// Whether Azure DevOps refuses the access tokens that Entra issues.
    pub issued_tokens_refused: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            latency_millis: 0,
            graph_page_size: 100,
            search_info_code: 0,
            rev_mismatch: RevMismatch::PreconditionFailed,
            nonce_seconds: 300,
            assignee_format: AssigneeFormat::Identity,
            refresh_tokens_once: false,
            access_token_seconds: 3600,
            issued_tokens_refused: false,
        }
    }
}

/// The refusal of a PATCH whose `test /rev` fails. Each has `VS403351` in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevMismatch {
    /// 412.
    PreconditionFailed,
    /// 400.
    BadRequest,
    /// 409.
    Conflict,
}

/// The format of an assignee in a service-hook event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssigneeFormat {
    /// `{displayName, uniqueName, id, descriptor, …}`.
    Identity,
    /// `Name <someone@example.com>`.
    NameAndMail,
    /// Only the display name.
    DisplayName,
    /// `Name <DOMAIN\user>`; the domain is `FABRIKAM` if the user has no login.
    NameAndLogin,
}

/// Returns the key of a work item in [`State::work_items`] and in the map of assignees:
/// `contoso:17`.
#[must_use]
pub fn work_item_key(organization: &str, id: i64) -> String {
    format!("{organization}:{id}")
}

/// Returns a version 4 UUID (RFC 9562) that depends only on `name`, so that documents need no
/// randomness.
#[must_use]
pub fn stable_uuid(name: &str) -> Uuid {
    let digest = Sha256::digest(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

impl User {
    /// Creates a person with ids derived from `unique_name`, which is also the e-mail address.
    #[must_use]
    pub fn named(display_name: &str, unique_name: &str) -> Self {
        let id = stable_uuid(&format!("user {unique_name}"));
        Self {
            id,
            display_name: display_name.to_owned(),
            mail_address: Some(unique_name.to_owned()),
            descriptor: format!(
                "aad.{}",
                data_encoding::BASE64URL_NOPAD.encode(id.as_bytes())
            ),
            login: None,
        }
    }
}

impl State {
    /// Creates a state with only the type `Bug` (New, Active, Resolved, Closed).
    #[must_use]
    pub fn new() -> Self {
        let states = [
            ("New", "Proposed"),
            ("Active", "InProgress"),
            ("Resolved", "Resolved"),
            ("Closed", "Completed"),
        ];
        let states = states.map(|(name, category)| WorkItemState {
            name: name.into(),
            category: category.into(),
        });
        Self {
            work_item_types: BTreeMap::from([("Bug".to_owned(), states.to_vec())]),
            ..Self::default()
        }
    }

    /// Adds a person, see [`User::named`].
    #[must_use]
    pub fn user(mut self, display_name: &str, unique_name: &str) -> Self {
        self.users.insert(
            unique_name.to_owned(),
            User::named(display_name, unique_name),
        );
        self
    }

    /// Adds a valid token of a person.
    #[must_use]
    pub fn token(mut self, token: &str, unique_name: &str) -> Self {
        let of_user = Token {
            user: unique_name.to_owned(),
            expired: false,
            sign_in_page: false,
        };
        self.tokens.insert(token.to_owned(), of_user);
        self
    }

    /// Adds an organization with one project, and everybody added so far as a member.
    #[must_use]
    pub fn account(mut self, organization: &str, project: &str) -> Self {
        let account = Account {
            id: stable_uuid(&format!("account {organization}")),
            collection_id: stable_uuid(&format!("collection {organization}")),
            members: self.users.keys().cloned().collect(),
            projects: BTreeMap::from([(
                project.to_owned(),
                stable_uuid(&format!("project {organization}/{project}")),
            )]),
        };
        self.accounts.insert(organization.to_owned(), account);
        self
    }

    /// Adds a `Bug` in the state `New`, revision 1 of 2020-01-01, changed by its assignee or else
    /// by the first user.
    #[must_use]
    pub fn bug(
        mut self,
        organization: &str,
        project: &str,
        id: i64,
        title: &str,
        assigned_to: Option<&str>,
    ) -> Self {
        let author = assigned_to
            .map(str::to_owned)
            .or_else(|| self.users.keys().next().cloned());
        let first = Revision {
            rev: 1,
            state: "New".to_owned(),
            assigned_to: assigned_to.map(str::to_owned),
            changed_by: author.unwrap_or_default(),
            changed_date: time::macros::datetime!(2020-01-01 00:00 UTC),
        };
        let item = WorkItem {
            project: project.to_owned(),
            work_item_type: "Bug".to_owned(),
            title: title.to_owned(),
            revisions: vec![first],
            assigned_to_as_is: None,
            deleted: false,
        };
        self.work_items
            .insert(work_item_key(organization, id), item);
        self
    }

    /// Adds an empty Discord channel and a bot token that may write to it.
    #[must_use]
    pub fn channel(mut self, token: &str, channel: &str) -> Self {
        self.discord.tokens.insert(token.to_owned());
        self.discord.channels.entry(channel.to_owned()).or_default();
        self
    }

    /// Adds a webhook receiver whose secret is `whsec_` and base64.
    #[must_use]
    pub fn webhook(mut self, name: &str, secret: &str, mode: WebhookMode) -> Self {
        let receiver = Webhook {
            secret: secret.to_owned(),
            mode,
            received: Vec::new(),
            keys: BTreeSet::new(),
        };
        self.webhooks.insert(name.to_owned(), receiver);
        self
    }

    /// Merges `other` into this state. Entries with the same key are replaced, and so are the
    /// options.
    pub fn merge(&mut self, mut other: Self) {
        self.merge_chats(&mut other);
        self.users.extend(other.users);
        self.tokens.extend(other.tokens);
        self.entra.clients.extend(other.entra.clients);
        self.entra.refresh_tokens.extend(other.entra.refresh_tokens);
        self.accounts.extend(other.accounts);
        self.work_item_types.extend(other.work_item_types);
        self.work_items.extend(other.work_items);
        self.discord.tokens.extend(other.discord.tokens);
        self.discord.channels.extend(other.discord.channels);
        self.webhooks.extend(other.webhooks);
        self.options = other.options;
    }
}
