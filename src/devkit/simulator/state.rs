//! The state document: everything the simulated providers know. Tests and the demo build one in Rust and post it;
//! `GET /_sim/state` answers the present one in the same shape.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use super::chats::{Click, DiscordHook, MailServer, Slack, TeamsHook};
pub use super::entra::{Entra, RefreshToken};

/// Everything. No `Debug`: it holds tokens and signing secrets.
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
    /// The simulated Slack.
    pub slack: Slack,
    /// Workflows of Microsoft Teams, by name.
    pub teams: BTreeMap<String, TeamsHook>,
    /// The simulated mail server.
    pub mail: MailServer,
    /// How the simulator behaves.
    pub options: Options,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The identity's id, and the profile's.
    pub id: Uuid,
    /// As people read it. May hold anything, `<` and `>` too.
    pub display_name: String,
    /// The e-mail address of record; may differ from the unique name, or be missing.
    #[serde(default)]
    pub mail_address: Option<String>,
    /// The subject descriptor.
    pub descriptor: String,
    /// `DOMAIN\user` of a person kept on the company's own servers.
    #[serde(default)]
    pub login: Option<String>,
}

/// An access token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The unique name of the user it belongs to.
    pub user: String,
    /// Answered 401.
    #[serde(default)]
    pub expired: bool,
    /// Answered 203 with an HTML sign-in page.
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
    /// Unique names of those who may use it.
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
    /// `Active`.
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
    /// Searched for, and shown.
    pub title: String,
    /// Oldest first; never empty; the last is the present one.
    pub revisions: Vec<Revision>,
    /// What `System.AssignedTo` holds instead of the last revision's assignee, until an assignee is written.
    #[serde(default)]
    pub assigned_to_as_is: Option<Value>,
    /// Gone: as if it had never been.
    #[serde(default)]
    pub deleted: bool,
}

/// One revision of a work item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// From 1.
    pub rev: i64,
    /// The state's name.
    pub state: String,
    /// The assignee's unique name.
    pub assigned_to: Option<String>,
    /// The unique name of who made this revision.
    pub changed_by: String,
    /// When; strictly increasing over the revisions.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_date: OffsetDateTime,
}

/// The simulated Discord.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discord {
    /// Bot tokens that are let in.
    pub tokens: BTreeSet<String>,
    /// Messages received, oldest first, by channel id. A channel that is not here does not exist.
    pub channels: BTreeMap<String, Vec<Message>>,
    /// Webhooks of channels, by id.
    pub webhooks: BTreeMap<String, DiscordHook>,
    /// Clicks that can be answered, by token.
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
    /// As sent: a string, an integer or null.
    #[serde(default)]
    pub nonce: Value,
    /// As sent.
    #[serde(default)]
    pub allowed_mentions: Value,
    /// When it was made.
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
    /// What it took effect on, oldest first.
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
    /// On `webhook-id`: a repeated one is answered 200 and has no effect.
    Keyed,
    /// Not at all: each has its effect.
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

/// How the simulator behaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Before every answer of a provider, in milliseconds.
    pub latency_millis: u64,
    /// Users on one page of the graph.
    pub graph_page_size: usize,
    /// `infoCode` of search answers; anything but 0 comes with no results.
    pub search_info_code: i64,
    /// How a PATCH whose `test /rev` does not hold is refused.
    pub rev_mismatch: RevMismatch,
    /// For how long Discord remembers a nonce, in seconds.
    pub nonce_seconds: i64,
    /// How events name the assignee when the change does not say.
    pub assignee_format: AssigneeFormat,
    /// Whether a refresh token is good for one refresh only. At Microsoft Entra it is not.
    pub refresh_tokens_once: bool,
    /// `expires_in` of the access tokens that Entra issues, in seconds. They do not end by themselves.
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

/// How a PATCH whose `test /rev` does not hold is refused; each with `VS403351` in the message.
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

/// How a service-hook event names an assignee.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssigneeFormat {
    /// `{displayName, uniqueName, id, descriptor, …}`.
    Identity,
    /// `Name <someone@example.com>`.
    NameAndMail,
    /// The bare display name.
    DisplayName,
    /// `Name <DOMAIN\user>`; the domain is `FABRIKAM` where the user has no login.
    NameAndLogin,
}

/// The key of a work item in [`State::work_items`] and in the map of assignees: `contoso:17`.
#[must_use]
pub fn work_item_key(organization: &str, id: i64) -> String {
    format!("{organization}:{id}")
}

/// A version 4 UUID (RFC 9562) that is always the same for the same `name`, so that documents need no randomness.
#[must_use]
pub fn stable_uuid(name: &str) -> Uuid {
    let digest = Sha256::digest(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

impl User {
    /// A person with ids made from `unique_name`, which is their e-mail address too.
    #[must_use]
    pub fn named(display_name: &str, unique_name: &str) -> Self {
        let id = stable_uuid(&format!("user {unique_name}"));
        Self {
            id,
            display_name: display_name.to_owned(),
            mail_address: Some(unique_name.to_owned()),
            descriptor: format!("aad.{}", data_encoding::BASE64URL_NOPAD.encode(id.as_bytes())),
            login: None,
        }
    }
}

impl State {
    /// A state with the type `Bug` (New, Active, Resolved, Closed) and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let states = [("New", "Proposed"), ("Active", "InProgress"), ("Resolved", "Resolved"), ("Closed", "Completed")];
        let states = states.map(|(name, category)| WorkItemState { name: name.into(), category: category.into() });
        Self { work_item_types: BTreeMap::from([("Bug".to_owned(), states.to_vec())]), ..Self::default() }
    }

    /// With a person, see [`User::named`].
    #[must_use]
    pub fn user(mut self, display_name: &str, unique_name: &str) -> Self {
        self.users.insert(unique_name.to_owned(), User::named(display_name, unique_name));
        self
    }

    /// With a valid token of a person.
    #[must_use]
    pub fn token(mut self, token: &str, unique_name: &str) -> Self {
        let of_user = Token { user: unique_name.to_owned(), expired: false, sign_in_page: false };
        self.tokens.insert(token.to_owned(), of_user);
        self
    }

    /// With an organization that has one project, and everybody added so far as a member.
    #[must_use]
    pub fn account(mut self, organization: &str, project: &str) -> Self {
        let account = Account {
            id: stable_uuid(&format!("account {organization}")),
            collection_id: stable_uuid(&format!("collection {organization}")),
            members: self.users.keys().cloned().collect(),
            projects: BTreeMap::from([(project.to_owned(), stable_uuid(&format!("project {organization}/{project}")))]),
        };
        self.accounts.insert(organization.to_owned(), account);
        self
    }

    /// With a `Bug` in the state `New`, revision 1 of 2020-01-01, changed by its assignee or else by the first user.
    #[must_use]
    pub fn bug(mut self, organization: &str, project: &str, id: i64, title: &str, assigned_to: Option<&str>) -> Self {
        let author = assigned_to.map(str::to_owned).or_else(|| self.users.keys().next().cloned());
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
        self.work_items.insert(work_item_key(organization, id), item);
        self
    }

    /// With an empty Discord channel and a bot token that may write to it.
    #[must_use]
    pub fn channel(mut self, token: &str, channel: &str) -> Self {
        self.discord.tokens.insert(token.to_owned());
        self.discord.channels.entry(channel.to_owned()).or_default();
        self
    }

    /// With a webhook receiver whose secret is `whsec_` and base64.
    #[must_use]
    pub fn webhook(mut self, name: &str, secret: &str, mode: WebhookMode) -> Self {
        let receiver = Webhook { secret: secret.to_owned(), mode, received: Vec::new(), keys: BTreeSet::new() };
        self.webhooks.insert(name.to_owned(), receiver);
        self
    }

    /// Takes over everything in `other`: what has the same key is replaced, and the options are.
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
