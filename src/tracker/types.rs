//! The product's nouns, as read from and written to its tables.

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
    /// Switched off by a person: jobs wait.
    pub disabled: bool,
    /// Who the worker acts as when the job does not say.
    pub identity_id: Option<i64>,
    /// What is synchronised.
    pub settings: SyncSettings,
}

/// An Azure DevOps account, whoever uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Integration {
    /// Row id.
    pub id: i64,
    /// The account's name: the `{organization}` segment of Azure DevOps' URLs.
    pub account_name: String,
    /// The account's id (a GUID).
    pub account_id: String,
}

/// What an organization wants synchronised through one installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncSettings {
    /// Tracker's assignee → our groups.
    pub assignee_inbound: bool,
    /// Our groups' assignee → the other linked work items.
    pub assignee_outbound: bool,
    /// Tracker's state category → our groups' status.
    pub status_inbound: bool,
}

/// An identity without its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Row id.
    pub id: i64,
    /// Unique in the organization.
    pub name: String,
    /// End of the access token's life.
    pub token_expires_at: OffsetDateTime,
    /// One more with every change of the tokens.
    pub version: i64,
}

/// An identity's token, opened.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// Of the identity.
    pub identity_id: i64,
    /// The slug of the identity's organization.
    pub organization: String,
    /// Never stored or shown.
    pub token: SecretString,
    /// End of its life.
    pub expires_at: OffsetDateTime,
    /// What is left of its life by Postgres' clock; negative once it has ended.
    pub ends_in: Duration,
    /// One more with every change of the tokens.
    pub version: i64,
}

/// Whether a caller may refresh an identity's tokens.
#[derive(Debug)]
pub enum RefreshTurn {
    /// Yes, alone, until the time it asked for is over.
    Yours(Turn),
    /// Not now: somebody else is at it. Ask again.
    Taken,
    /// The tokens have changed since, or the identity is gone: read the access token again.
    Moved,
    /// There is no refresh token: a person must sign in.
    NoRefreshToken,
    /// Microsoft Entra refused the refresh token less than a minute ago, and said this: a person must sign in.
    Refused(Option<String>),
    /// Tokens were refreshed because the access token was refused, within the time asked about: its age is not what is wrong.
    RefusedAgain,
}

/// The right to refresh an identity's tokens, see [`RefreshTurn::Yours`].
#[derive(Debug)]
pub struct Turn {
    /// Opened.
    pub refresh_token: SecretString,
    /// End of the turn by Postgres' clock; nobody else has a turn with this end.
    pub until: OffsetDateTime,
}

/// Tokens as Microsoft Entra gave them.
#[derive(Debug)]
pub struct NewTokens {
    /// The new access token.
    pub access_token: SecretString,
    /// The new refresh token; `None` leaves the old one in place (RFC 6749 §6).
    pub refresh_token: Option<SecretString>,
    /// How long the access token lives.
    pub expires_in: std::time::Duration,
    /// Whether they were asked for because the access token before was refused.
    pub after_refusal: bool,
}

/// Tokens as a person gives them; at least one of the two.
#[derive(Debug)]
pub struct GivenTokens {
    /// None: it is refreshed before its first use.
    pub access_token: Option<SecretString>,
    /// None: nothing is refreshed.
    pub refresh_token: Option<SecretString>,
    /// Of the access token.
    pub end: TokenEnd,
}

/// When a token's life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenEnd {
    /// Then.
    At(OffsetDateTime),
    /// So long from now, by Postgres' clock.
    In(std::time::Duration),
}

/// An identity as people see it, without its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityRow {
    /// Row id.
    pub id: i64,
    /// Slug of its organization.
    pub organization: String,
    /// Unique in the organization.
    pub name: String,
    /// End of the access token's life.
    #[serde(with = "time::serde::rfc3339")]
    pub token_expires_at: OffsetDateTime,
    /// One more with every change of the tokens.
    pub version: i64,
    /// Whether it has a refresh token.
    pub has_refresh_token: bool,
    /// When Microsoft Entra last refused the refresh token; none where it has taken one since.
    #[serde(with = "time::serde::rfc3339::option")]
    pub refresh_refused_at: Option<OffsetDateTime>,
}

/// A person of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Row id.
    pub id: i64,
    /// As shown.
    pub name: String,
    /// Verified e-mail addresses, lowercase, in order.
    pub emails: Vec<String>,
}

/// A group linked to a work item, in an organization whose assignee or status inbound sync is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedGroup {
    /// The group.
    pub group_id: i64,
    /// Its project.
    pub project_id: i64,
    /// The tenant.
    pub organization_id: i64,
    /// The linked work item.
    pub work_item_id: i64,
    /// Of this organization's installation.
    pub settings: SyncSettings,
    /// The present assignee.
    pub assignee: Option<i64>,
    /// Revision last applied to the assignee, or written by us; 0 = none.
    pub applied_rev: i64,
    /// State category last applied, as a word; `None` = none.
    pub applied_category: Option<String>,
}

/// What `sync_assignees` plans for one (group, work item) link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedLink {
    /// The group.
    pub group_id: i64,
    /// The work item.
    pub work_item_id: i64,
    /// Of the work item, as read.
    pub rev: i64,
    /// Of the work item's last change, as read.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_date: OffsetDateTime,
    /// The assignee as the tracker writes it (lowercase e-mail or unique name), `None` = unassigned: to recognise our own writes.
    pub tracker_assignee: Option<String>,
    /// For the assignee.
    pub assignee: AssigneePlan,
    /// For the status.
    pub status: StatusPlan,
    /// The work item's state category, as a word.
    pub category: String,
}

/// What to do with a group's assignee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssigneePlan {
    /// To this user.
    Assign(i64),
    /// To nobody.
    Unassign,
    /// As it is.
    Keep,
    /// As it is, because the tracker's assignee is nobody we know: why.
    Unresolved(String),
}

/// What to do with a group's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusPlan {
    /// The work item became done.
    Resolve,
    /// The work item is no longer done.
    Unresolve,
    /// Nothing.
    None,
}

/// Product data that a commit applies in its own transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Stage `update_assignments`: the plan, and the events that now count as seen.
    Assignments {
        /// Of the installation.
        integration_id: i64,
        /// One per link.
        links: Vec<PlannedLink>,
        /// Event ids.
        seen_events: Vec<String>,
    },
    /// Stage `patch_work_item`: the revision that our own write made, or that already had our value.
    AppliedRevision {
        /// The group the value came from.
        group_id: i64,
        /// Of the work item.
        integration_id: i64,
        /// The work item.
        work_item_id: i64,
        /// The revision that has our value.
        rev: i64,
    },
}

/// What applying [`Changes::Assignments`] did: the output of `update_assignments`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Groups whose assignee changed.
    pub assignees: Vec<AssigneeChange>,
    /// Groups whose status changed.
    pub statuses: Vec<StatusChange>,
    /// Links whose work item has fallen behind its group (the group follows a later change of another work item): outbound
    /// sync brings them in line.
    pub behind: Vec<BehindLink>,
    /// Links left alone because their revision was not newer, or was written by us.
    pub old_news: u32,
    /// Links whose assignee nobody of ours matches.
    pub unresolved: u32,
    /// Events newly marked seen.
    pub events_seen: u32,
}

/// A group whose assignee changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssigneeChange {
    /// The group.
    pub group_id: i64,
    /// Its organization.
    pub organization_id: i64,
    /// As shown to people (`WEB-17`).
    pub group_short_id: String,
    /// As shown to people.
    pub group_title: String,
    /// The work item that decided.
    pub work_item_id: i64,
    /// Before: id and name.
    pub from: Option<(i64, String)>,
    /// After: id and name.
    pub to: Option<(i64, String)>,
}

/// A group whose status changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusChange {
    /// The group.
    pub group_id: i64,
    /// Its organization.
    pub organization_id: i64,
    /// As shown to people.
    pub group_short_id: String,
    /// As shown to people.
    pub group_title: String,
    /// The work item that decided.
    pub work_item_id: i64,
    /// `resolved` or `unresolved`.
    pub to: String,
}

/// A link whose work item does not have its group's assignee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindLink {
    /// The group.
    pub group_id: i64,
    /// The work item.
    pub work_item_id: i64,
}

/// A work item that should have its group's assignee.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboundLink {
    /// The group.
    pub group_id: i64,
    /// Of the installation.
    pub integration_id: i64,
    /// The work item.
    pub work_item_id: i64,
}

/// A group's assignee now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupAssignee {
    /// Nobody, or a user with verified e-mails.
    pub user: Option<User>,
    /// `System.ChangedDate` of the work item revision that decided; `None` = never decided by the tracker.
    pub decided_at: Option<OffsetDateTime>,
}

/// A place for messages, registered by an organization.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Row id.
    pub id: i64,
    /// Slug of the organization that has registered it.
    pub organization: String,
    /// Unique in the organization.
    pub name: String,
    /// The channel's kind: `discord`, `webhook` …
    pub kind: String,
    /// Public settings of the channel.
    pub config: Value,
    /// Opened.
    pub secret: Option<SecretString>,
    /// The one before it, opened, while it is being replaced.
    pub previous_secret: Option<SecretString>,
    /// `resend` or `hold`, for blind effects whose outcome is unknown.
    pub unknown_policy: String,
    /// Takes no messages for now.
    pub disabled: bool,
}

/// A person's click in Discord, and what answers it.
#[derive(Debug, Clone)]
pub struct Clicked {
    /// Discord's application id.
    pub application_id: String,
    /// The message to edit instead of making one.
    pub message_id: Option<String>,
    /// Opened.
    pub token: SecretString,
}

/// Who caused a change, for activity rows.
#[derive(Debug, Clone, Copy)]
pub struct ChangedBy {
    /// The job.
    pub job: JobId,
}
