//! The faults of the stages themselves, beside those of the tracker, the providers and the engine.

use crate::fault::{Class, Fault, WaitOn};
use crate::job::{JobId, WaitReason};
use crate::providers::discord::interaction::{EXPIRED, EXPIRED_HINT};
use crate::tracker::{destination_cause, identity_cause, installation_cause};

/// A fault that stops a stage. `Display` describes the state, [`Fault::hint`] the action that
/// resolves it.
#[derive(Debug, thiserror::Error)]
pub enum ProductFault {
    /// The request names an organization that the tracker does not have.
    #[error("there is no organization `{0}`")]
    UnknownOrganization(String),
    /// A person has disabled the installation.
    #[error("the installation of account `{account}` is disabled")]
    InstallationDisabled {
        integration_id: i64,
        organization_id: i64,
        /// The account's name.
        account: String,
    },
    /// An identity's token has expired, or Azure DevOps refuses it.
    #[error("identity {identity_id} must sign in again: {why}")]
    Reauthentication {
        identity_id: i64,
        /// The version of the token that was used.
        version: i64,
        /// What is wrong with the token, and why it is not refreshed.
        why: String,
    },
    /// Another refresh of an identity's tokens has held the turn for longer than a refresh may
    /// take.
    #[error("another refresh of the tokens of identity {0} has not finished in time")]
    RefreshBusy(i64),
    /// An identity's row does not exist, or an installation has no identity.
    #[error("there is no identity to act as: {0}")]
    NoIdentity(String),
    /// A work item lacks a required field, or the field has an unexpected form.
    #[error("work item {id} cannot be read: {why}")]
    UnreadableWorkItem {
        /// Its id in its account.
        id: i64,
        /// The expected and the actual value.
        why: String,
    },
    /// A checkpoint written by hand lacks data that the pipeline relies on.
    #[error("the checkpoint of `{0}` names no account or no identity")]
    IncompleteCheckpoint(&'static str),
    /// The request names destinations that its organization does not have.
    #[error("there is no destination {} in organization `{organization}`", names.join(", "))]
    UnknownDestination {
        /// The names in the request, in backquotes.
        names: Vec<String>,
        /// The tenant's slug.
        organization: String,
    },
    #[error("destination {0} no longer exists")]
    DestinationGone(i64),
    /// A person has disabled the destination.
    #[error("destination `{name}` is disabled")]
    DestinationDisabled {
        /// Row id.
        id: i64,
        name: String,
    },
    /// The job that a click created no longer exists, and with it the token that answers the
    /// click.
    #[error("job {0} has no interaction to answer")]
    InteractionGone(JobId),
    #[error("the click that created job {0} is too old to be answered")]
    InteractionExpired(JobId),
    /// A destination's policy for unknown outcomes is neither `resend` nor `hold`.
    #[error(
        "expected the policy for unknown outcomes of destination `{name}` to be `resend` or `hold`, got `{policy}`"
    )]
    UnknownPolicy { name: String, policy: String },
    #[error("destination `{name}` has the kind `{kind}`, which this worker does not support")]
    UnknownChannel { name: String, kind: String },
    /// A destination's kind has changed since its message was rendered.
    #[error(
        "the message was rendered for the kind `{rendered}`, but destination `{name}` now has the kind `{kind}`"
    )]
    ChannelChanged {
        name: String,
        /// Its present kind.
        kind: String,
        /// The kind for which the message was rendered.
        rendered: String,
    },
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for ProductFault {
    fn code(&self) -> &'static str {
        match self {
            Self::UnknownOrganization(_) => "unknown_organization",
            Self::InstallationDisabled { .. } => "installation_disabled",
            Self::Reauthentication { .. } => "reauthentication",
            Self::RefreshBusy(_) => "refresh_busy",
            Self::NoIdentity(_) => "no_identity",
            Self::UnreadableWorkItem { .. } => "unreadable_work_item",
            Self::IncompleteCheckpoint(_) => "incomplete_checkpoint",
            Self::UnknownDestination { .. } => "unknown_destination",
            Self::DestinationGone(_) => "destination_gone",
            Self::DestinationDisabled { .. } => "destination_disabled",
            Self::InteractionGone(_) => "interaction_gone",
            Self::InteractionExpired(_) => EXPIRED,
            Self::UnknownPolicy { .. } => "unknown_policy",
            Self::UnknownChannel { .. } => "unknown_channel",
            Self::ChannelChanged { .. } => "channel_changed",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::InstallationDisabled {
                integration_id,
                organization_id,
                ..
            } => wait(
                WaitReason::InstallationDisabled,
                installation_cause(*integration_id, *organization_id),
                0,
            ),
            Self::Reauthentication {
                identity_id,
                version,
                ..
            } => wait(
                WaitReason::Reauthentication,
                identity_cause(*identity_id),
                *version,
            ),
            Self::DestinationDisabled { id, .. } => {
                wait(WaitReason::Hold, destination_cause(*id), 0)
            }
            Self::RefreshBusy(_) => Class::Transient { retry_after: None },
            Self::UnknownOrganization(_)
            | Self::NoIdentity(_)
            | Self::UnreadableWorkItem { .. }
            | Self::IncompleteCheckpoint(_)
            | Self::UnknownDestination { .. }
            | Self::DestinationGone(_)
            | Self::InteractionGone(_)
            | Self::InteractionExpired(_)
            | Self::UnknownPolicy { .. }
            | Self::UnknownChannel { .. }
            | Self::ChannelChanged { .. } => Class::Permanent,
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::UnknownOrganization(slug) => {
                format!("Import organization `{slug}` with `dispatch tracker import`, then retry; or correct the producer.")
            }
            Self::InstallationDisabled { account, .. } => {
                format!("Enable account {account} with `dispatch integrations enable`; the job then continues.")
            }
            Self::Reauthentication { identity_id, .. } => {
                format!(
                    "Sign in again as identity {identity_id} (`dispatch identities list`) and store its new tokens with \
                     `dispatch identities set-tokens`; all jobs that wait for them then continue."
                )
            }
            Self::RefreshBusy(_) => "Microsoft Entra or the network is slow; the worker retries.".to_owned(),
            Self::UnreadableWorkItem { id, .. } => {
                format!("Open work item {id} in Azure DevOps and complete its type, state and project; then retry.")
            }
            Self::NoIdentity(_) => "Give the installation an identity with `dispatch tracker import`, then retry.".to_owned(),
            Self::IncompleteCheckpoint(_) => {
                "The checkpoint was written by hand: cancel the job and publish it again with a new dedupe_key.".to_owned()
            }
            Self::UnknownDestination { organization, .. } => format!(
                "Register it with `dispatch destinations register --organization {organization}`, then retry: \
                 the assignments are already applied, and the job continues at this stage."
            ),
            Self::DestinationGone(_) => {
                "Cancel this follow-up: its message cannot be sent. Register the destination again for later messages.".to_owned()
            }
            Self::DestinationDisabled { name, .. } => {
                format!("Enable destination `{name}` with `dispatch destinations enable`; the job then continues.")
            }
            Self::InteractionGone(_) => "Cancel this follow-up: the click can no longer be answered.".to_owned(),
            Self::InteractionExpired(_) => EXPIRED_HINT.to_owned(),
            Self::UnknownPolicy { name, .. } => {
                format!("Register destination `{name}` again with the policy `resend` or `hold`.")
            }
            Self::UnknownChannel { name, .. } => {
                format!(
                    "Register destination `{name}` again with a kind that `dispatch destinations` lists, or start a worker that supports it."
                )
            }
            Self::ChannelChanged { name, rendered, .. } => {
                format!("Register destination `{name}` again with the kind `{rendered}`, then retry; or cancel this job.")
            }
        }
    }
}

const fn wait(reason: WaitReason, key: String, observed: i64) -> Class {
    Class::Wait(WaitOn {
        reason,
        key,
        observed,
    })
}
