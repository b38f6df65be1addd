//! The tracker document: the data of organizations by natural keys. An absent optional value keeps
//! the stored one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::types::SyncSettings;

/// The tracker document of `dispatch tracker import` and `export`: the data of organizations by
/// natural keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackerDocument {
    /// People; the key is their first e-mail.
    #[serde(default)]
    pub users: Vec<UserDocument>,
    /// Azure DevOps accounts; the key is the account id.
    #[serde(default)]
    pub integrations: Vec<IntegrationDocument>,
    /// Tenants; the key is the slug.
    #[serde(default)]
    pub organizations: Vec<OrganizationDocument>,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserDocument {
    /// The display name.
    pub name: String,
    /// Verified addresses, at least one; the first one is the key.
    pub emails: Vec<String>,
}

/// An Azure DevOps account.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntegrationDocument {
    /// The account's id (a GUID).
    pub account_id: String,
    /// The account's name in URLs.
    pub account_name: String,
    /// Secrets of its service-hook subscriptions, plain in the document, stored as SHA-256. Two
    /// may be valid at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hook_secrets: Vec<String>,
    /// The stored digests of such secrets, which an export contains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hook_secret_digests: Vec<HookSecretDigest>,
}

/// The stored form of a hook secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookSecretDigest {
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// The expiry, during a rotation.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub valid_until: Option<OffsetDateTime>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationDocument {
    /// The key.
    pub slug: String,
    /// The display name.
    pub name: String,
    /// Identities that the worker can act as; the key is the name.
    #[serde(default)]
    pub identities: Vec<IdentityDocument>,
    /// Accounts in use; the key is the account id.
    #[serde(default)]
    pub installations: Vec<InstallationDocument>,
    /// Teams; the key is the slug.
    #[serde(default)]
    pub teams: Vec<TeamDocument>,
    /// Projects; the key is the slug.
    #[serde(default)]
    pub projects: Vec<ProjectDocument>,
    /// Destinations; the key is the name.
    #[serde(default)]
    pub destinations: Vec<DestinationDocument>,
}

/// An identity that the worker can act as.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityDocument {
    /// The key.
    pub name: String,
    /// The access token, plain in the document, stored sealed. Without any token, the stored ones
    /// stay; the jobs of a new identity wait `reauthentication`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// The refresh token, plain in the document, stored sealed. It may be given without an access
    /// token and is then used at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The expiry of the access token; required with it.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<OffsetDateTime>,
}

/// An account in use by an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallationDocument {
    /// The id of the account.
    pub account_id: String,
    /// The identity used when a job names none.
    #[serde(default)]
    pub identity: Option<String>,
    /// Whether the account is disabled; its jobs wait.
    #[serde(default)]
    pub disabled: bool,
    /// The settings for synchronization.
    pub settings: SyncSettings,
}

/// A team of an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamDocument {
    /// The key.
    pub slug: String,
    /// Verified e-mails of users.
    pub members: Vec<String>,
}

/// A project of an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectDocument {
    /// The key.
    pub slug: String,
    /// The display name.
    pub name: String,
    /// Verified e-mails of users.
    #[serde(default)]
    pub members: Vec<String>,
    /// Groups; the key is the short id.
    #[serde(default)]
    pub groups: Vec<GroupDocument>,
}

/// An issue group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupDocument {
    /// The key (`WEB-17`).
    pub short_id: String,
    /// The title.
    pub title: String,
    /// Linked work items by account.
    #[serde(default)]
    pub links: Vec<LinkDocument>,
    /// A team whose members are subscribed while one of them is the assignee.
    #[serde(default)]
    pub team: Option<String>,
}

/// A linked work item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkDocument {
    /// The id of the account.
    pub account_id: String,
    /// The work item's id in that account.
    pub work_item_id: i64,
}

/// A destination for messages.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationDocument {
    /// The key.
    pub name: String,
    /// `discord`, `webhook` …
    pub kind: String,
    /// Public settings of the channel.
    pub config: Value,
    /// The secret, plain in the document, stored sealed. Without it, the stored one stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whether jobs that name no destinations send here.
    #[serde(default)]
    pub default: bool,
    /// `resend` or `hold`.
    #[serde(default = "resend")]
    pub unknown_policy: String,
    /// Whether the destination is disabled; its messages wait. `None` keeps the stored value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

fn resend() -> String {
    "resend".to_owned()
}

impl fmt::Debug for IntegrationDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntegrationDocument")
            .field("account_id", &self.account_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IdentityDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityDocument")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DestinationDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DestinationDocument")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Counts of an import, by table.
pub type ImportCounts = BTreeMap<String, u64>;
