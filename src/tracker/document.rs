//! The tracker document: everything an organization has, by natural keys. What may be absent stays as it is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::types::SyncSettings;

/// The tracker document of `dispatch tracker import` and `export`: everything an organization has, by natural keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrackerDocument {
    /// People, known by their first e-mail.
    #[serde(default)]
    pub users: Vec<UserDocument>,
    /// Azure DevOps accounts, known by account id.
    #[serde(default)]
    pub integrations: Vec<IntegrationDocument>,
    /// Tenants, known by slug.
    #[serde(default)]
    pub organizations: Vec<OrganizationDocument>,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserDocument {
    /// As shown.
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
    /// Secrets of its service-hook subscriptions, plain in the document, stored as SHA-256. Two may be valid at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hook_secrets: Vec<String>,
    /// Such secrets as they are stored: what an export has of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hook_secret_digests: Vec<HookSecretDigest>,
}

/// A hook secret as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookSecretDigest {
    /// 64 hexadecimal digits.
    pub sha256: String,
    /// Its end, where it is being replaced.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<OffsetDateTime>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganizationDocument {
    /// The key.
    pub slug: String,
    /// As shown.
    pub name: String,
    /// Who the worker can act as, known by name.
    #[serde(default)]
    pub identities: Vec<IdentityDocument>,
    /// Accounts in use, known by account id.
    #[serde(default)]
    pub installations: Vec<InstallationDocument>,
    /// Teams, known by slug.
    #[serde(default)]
    pub teams: Vec<TeamDocument>,
    /// Projects, known by slug.
    #[serde(default)]
    pub projects: Vec<ProjectDocument>,
    /// Destinations, known by name.
    #[serde(default)]
    pub destinations: Vec<DestinationDocument>,
}

/// Who the worker can act as.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityDocument {
    /// The key.
    pub name: String,
    /// Plain in the document, stored sealed. Without any token those that are there stay; jobs of a new identity wait
    /// `reauthentication`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// Plain in the document, stored sealed. It goes with the access token, or alone: then it is used at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// End of the access token's life; goes with it.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<OffsetDateTime>,
}

/// An account in use by an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallationDocument {
    /// Of the integration.
    pub account_id: String,
    /// The identity used when a job names none.
    #[serde(default)]
    pub identity: Option<String>,
    /// Jobs wait while it is.
    #[serde(default)]
    pub disabled: bool,
    /// What is synchronised.
    pub settings: SyncSettings,
}

/// A team of an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamDocument {
    /// The key.
    pub slug: String,
    /// First e-mails of users.
    pub members: Vec<String>,
}

/// A project of an organization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectDocument {
    /// The key.
    pub slug: String,
    /// As shown.
    pub name: String,
    /// First e-mails of users.
    #[serde(default)]
    pub members: Vec<String>,
    /// Groups, known by short id.
    #[serde(default)]
    pub groups: Vec<GroupDocument>,
}

/// An issue group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupDocument {
    /// The key (`WEB-17`).
    pub short_id: String,
    /// As shown.
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
    /// Of the integration.
    pub account_id: String,
    /// In that account.
    pub work_item_id: i64,
}

/// A place for messages.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationDocument {
    /// The key.
    pub name: String,
    /// `discord`, `webhook` …
    pub kind: String,
    /// Public settings of the channel.
    pub config: Value,
    /// Plain in the document, stored sealed. Without one the secret stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whether jobs that name nobody send here.
    #[serde(default)]
    pub default: bool,
    /// `resend` or `hold`.
    #[serde(default = "resend")]
    pub unknown_policy: String,
    /// Messages wait while it is. Where it is not said, it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

fn resend() -> String {
    "resend".to_owned()
}

impl fmt::Debug for IntegrationDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IntegrationDocument").field("account_id", &self.account_id).finish_non_exhaustive()
    }
}

impl fmt::Debug for IdentityDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityDocument").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for DestinationDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DestinationDocument").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Counts of an import, by table.
pub type ImportCounts = BTreeMap<String, u64>;
