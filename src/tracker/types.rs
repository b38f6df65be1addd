//! The types that are read from and written to the product's tables.

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::job::JobId;

/// An Azure DevOps account installed in an organization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Row id of the integration.
    pub integration_id: i64,
    /// The account's name: the `{organization}` segment of Azure DevOps' URLs.
    pub account_name: String,
    /// The account's id (a GUID), as jobs name it.
    pub account_id: String,
    /// Whether a person has disabled the installation; its jobs wait.
    pub disabled: bool,
    /// The identity that the worker acts as when a job names none.
    pub identity_id: Option<i64>,
    /// The settings for synchronization.
    pub settings: SyncSettings,
}

/// An Azure DevOps account, independent of the organizations that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    /// Row id.
    pub id: i64,
    /// The account's name: the `{organization}` segment of Azure DevOps' URLs.
    pub account_name: String,
    /// The account's id (a GUID).
    pub account_id: String,
}

/// The settings of one installation for synchronization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSettings {
    /// Whether the assignee in Azure DevOps is applied to our groups.
    pub assignee_inbound: bool,
    /// Whether our groups' assignee is written to the other linked work items.
    pub assignee_outbound: bool,
    /// Whether the state category in Azure DevOps is applied to our groups' status.
    pub status_inbound: bool,
}

/// An identity without its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Row id.
    pub id: i64,
    /// The name, unique in the organization.
    pub name: String,
    /// The expiry of the access token.
    pub token_expires_at: OffsetDateTime,
    /// The version of the tokens; each change increments it.
    pub version: i64,
}

/// An identity's opened access token.
#[derive(Debug, Clone)]
pub struct AccessToken {
    pub identity_id: i64,
    /// The slug of the identity's organization.
    pub organization: String,
    /// The token in plain text; it is never stored or shown.
    pub token: SecretString,
    /// The expiry.
    pub expires_at: OffsetDateTime,
    /// The time until the expiry by Postgres' clock; negative if the token has expired.
    pub ends_in: Duration,
    /// The version of the tokens; each change increments it.
    pub version: i64,
}

/// Whether a caller may refresh an identity's tokens.
#[derive(Debug)]
pub enum RefreshTurn {
    /// The caller has the turn, until the time that it requested has passed.
    Yours(Turn),
    /// Another caller has the turn; try again.
    Taken,
    /// The tokens have changed since, or the identity does not exist: read the access token again.
    Moved,
    /// There is no refresh token: a person must sign in.
    NoRefreshToken,
    /// Microsoft Entra refused the refresh token less than a minute ago, with this answer: a
    /// person must sign in.
    Refused(Option<String>),
    /// Within the given time, the tokens were already refreshed because the access token was
    /// refused: its age is not the cause.
    RefusedAgain,
}

/// The right to refresh an identity's tokens, see [`RefreshTurn::Yours`].
#[derive(Debug)]
pub struct Turn {
    /// The opened refresh token.
    pub refresh_token: SecretString,
    /// The end of the turn by Postgres' clock; no other turn has this end.
    pub until: OffsetDateTime,
}

/// The tokens that Microsoft Entra returned.
#[derive(Debug)]
pub struct NewTokens {
    pub access_token: SecretString,
    /// The new refresh token; `None` keeps the old one (RFC 6749 §6).
    pub refresh_token: Option<SecretString>,
    /// The lifetime of the access token.
    pub expires_in: std::time::Duration,
    /// Whether the refresh was made because the previous access token was refused.
    pub after_refusal: bool,
}

/// The tokens that a person gives; at least one of the two.
#[derive(Debug)]
pub struct GivenTokens {
    /// The access token; if `None`, it is refreshed before its first use.
    pub access_token: Option<SecretString>,
    /// The refresh token; if `None`, the access token is not refreshed.
    pub refresh_token: Option<SecretString>,
    /// The expiry of the access token.
    pub end: TokenEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEnd {
    At(OffsetDateTime),
    /// After this duration from now, by Postgres' clock.
    In(std::time::Duration),
}

/// An identity without its tokens, as shown to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityRow {
    /// Row id.
    pub id: i64,
    /// The slug of its organization.
    pub organization: String,
    /// The name, unique in the organization.
    pub name: String,
    /// The expiry of the access token.
    #[serde(with = "time::serde::rfc3339")]
    pub token_expires_at: OffsetDateTime,
    /// The version of the tokens; each change increments it.
    pub version: i64,
    pub has_refresh_token: bool,
    /// When Microsoft Entra last refused the refresh token; `None` if it has accepted one since.
    #[serde(with = "time::serde::rfc3339::option")]
    pub refresh_refused_at: Option<OffsetDateTime>,
}

/// A user of the tracker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Row id.
    pub id: i64,
    /// The display name.
    pub name: String,
    /// Verified e-mail addresses, lowercase, in order.
    pub emails: Vec<String>,
}

/// A group linked to a work item, in an organization whose assignee or status inbound sync is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedGroup {
    pub group_id: i64,
    pub project_id: i64,
    /// The tenant.
    pub organization_id: i64,
    pub work_item_id: i64,
    /// The settings of this organization's installation.
    pub settings: SyncSettings,
    /// The present assignee.
    pub assignee: Option<i64>,
    /// The revision last applied to the assignee, or written by us; 0 = none.
    pub applied_rev: i64,
    /// The state category last applied, as a word; `None` = none.
    pub applied_category: Option<String>,
}

/// The plan of `sync_assignees` for one (group, work item) link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLink {
    pub group_id: i64,
    pub work_item_id: i64,
    /// The revision of the work item that was read.
    pub rev: i64,
    /// The time of the work item's last change that was read.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_date: OffsetDateTime,
    /// The assignee in Azure DevOps (lowercase e-mail or unique name), `None` = unassigned;
    /// identifies our own writes.
    pub tracker_assignee: Option<String>,
    pub assignee: AssigneePlan,
    pub status: StatusPlan,
    /// The work item's state category, as a word.
    pub category: String,
}

/// The planned change of a group's assignee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssigneePlan {
    /// Assigns this user.
    Assign(i64),
    Unassign,
    Keep,
    /// Keeps the assignee, because the one in Azure DevOps matches no user; contains the reason.
    Unresolved(String),
}

/// The planned change of a group's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusPlan {
    /// The work item became done.
    Resolve,
    /// The work item is no longer done.
    Unresolve,
    /// No change.
    None,
}

/// Product data that a commit applies in its own transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Stage `update_assignments`: the plan, and the events that now count as seen.
    Assignments {
        /// The account.
        integration_id: i64,
        /// The plan, one entry per link.
        links: Vec<PlannedLink>,
        seen_events: Vec<String>,
    },
    /// Stage `patch_work_item`: the revision that our own write made, or that already had our
    /// value.
    AppliedRevision {
        /// The group whose value was written.
        group_id: i64,
        /// The account of the work item.
        integration_id: i64,
        work_item_id: i64,
        /// The revision with our value.
        rev: i64,
    },
}

/// The result of applying [`Changes::Assignments`]: the output of `update_assignments`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Groups whose assignee changed.
    pub assignees: Vec<AssigneeChange>,
    /// Groups whose status changed.
    pub statuses: Vec<StatusChange>,
    /// Links whose work item is behind its group (the group follows a later change of another work
    /// item). Outbound sync updates them.
    pub behind: Vec<BehindLink>,
    /// The number of links skipped because their revision was not newer, or was written by us.
    pub old_news: u32,
    /// The number of links whose assignee matches no user of ours.
    pub unresolved: u32,
    /// The number of events newly marked as seen.
    pub events_seen: u32,
}

/// A group whose assignee changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssigneeChange {
    pub group_id: i64,
    pub organization_id: i64,
    /// The group's short id, as shown to people (`WEB-17`).
    pub group_short_id: String,
    /// The group's title, as shown to people.
    pub group_title: String,
    /// The work item that decided.
    pub work_item_id: i64,
    /// Id and name of the previous assignee.
    pub from: Option<(i64, String)>,
    /// Id and name of the new assignee.
    pub to: Option<(i64, String)>,
}

/// A group whose status changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    pub group_id: i64,
    pub organization_id: i64,
    /// The group's short id, as shown to people.
    pub group_short_id: String,
    /// The group's title, as shown to people.
    pub group_title: String,
    /// The work item that decided.
    pub work_item_id: i64,
    /// `resolved` or `unresolved`.
    pub to: String,
}

/// A link whose work item does not have its group's assignee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindLink {
    pub group_id: i64,
    pub work_item_id: i64,
}

/// A work item that should have its group's assignee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundLink {
    pub group_id: i64,
    /// The account of the work item.
    pub integration_id: i64,
    pub work_item_id: i64,
}

/// A group's present assignee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAssignee {
    /// A user with verified e-mails; `None` if the group is unassigned.
    pub user: Option<User>,
    /// `System.ChangedDate` of the work item revision that decided; `None` if no work item has
    /// decided.
    pub decided_at: Option<OffsetDateTime>,
}

/// A destination for messages, registered by an organization.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Row id.
    pub id: i64,
    /// The slug of the organization that has registered it.
    pub organization: String,
    /// The name, unique in the organization.
    pub name: String,
    /// The channel's kind: `discord`, `webhook` …
    pub kind: String,
    /// Public settings of the channel.
    pub config: Value,
    /// The opened secret.
    pub secret: Option<SecretString>,
    /// The opened previous secret, during a rotation.
    pub previous_secret: Option<SecretString>,
    /// `resend` or `hold`, for at-least-once effects with an unknown outcome.
    pub unknown_policy: String,
    /// Whether the destination is disabled; its messages wait.
    pub disabled: bool,
}

/// A person's click in Discord, with the token for the answer.
#[derive(Debug, Clone)]
pub struct Clicked {
    /// Discord's application id.
    pub application_id: String,
    /// The message to edit instead of sending a new one.
    pub message_id: Option<String>,
    /// The opened token.
    pub token: SecretString,
}

/// The cause of a change, for activity rows.
#[derive(Debug, Clone, Copy)]
pub struct ChangedBy {
    pub job: JobId,
}
