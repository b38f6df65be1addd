//! What goes wrong in a stage itself, beside what the tracker, the providers and the engine report.

use crate::fault::{Class, Fault, WaitOn};
use crate::job::{JobId, WaitReason};
use crate::providers::discord_interaction::{EXPIRED, EXPIRED_HINT};
use crate::tracker::{destination_cause, identity_cause, installation_cause};

/// A stage cannot go on. `Display` says what is so, [`Fault::hint`] what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ProductFault {
    /// The request names an organization that the tracker does not have.
    #[error("there is no organization `{0}`")]
    UnknownOrganization(String),
    /// A person has switched the installation off.
    #[error("the installation of account {account} is disabled")]
    InstallationDisabled {
        /// The installation's integration.
        integration_id: i64,
        /// The installation's organization.
        organization_id: i64,
        /// The account's name.
        account: String,
    },
    /// An identity's token has ended, or Azure DevOps does not take it.
    #[error("identity {identity_id} must sign in again: {why}")]
    Reauthentication {
        /// The identity.
        identity_id: i64,
        /// Of the token that was seen.
        version: i64,
        /// What was seen of it.
        why: String,
    },
    /// Somebody else has been refreshing an identity's tokens for as long as it may take.
    #[error("the tokens of identity {0} are being refreshed, and it takes long")]
    RefreshBusy(i64),
    /// An identity row is gone, or an installation has none to act as.
    #[error("there is no identity to act as: {0}")]
    NoIdentity(String),
    /// A work item does not have what is needed of it.
    #[error("work item {id} cannot be read: {why}")]
    UnreadableWorkItem {
        /// Its id in its account.
        id: i64,
        /// What was expected, and what came.
        why: String,
    },
    /// A checkpoint written by hand leaves out what the pipeline has made sure of before.
    #[error("the checkpoint of `{0}` names no account or no identity")]
    IncompleteCheckpoint(&'static str),
    /// The request names destinations that its organization does not have.
    #[error("there is no destination {} in organization `{organization}`", names.join(", "))]
    UnknownDestination {
        /// As the request names them, in backquotes.
        names: Vec<String>,
        /// The tenant's slug.
        organization: String,
    },
    /// The destination of a message that was rendered before is gone.
    #[error("destination {0} is gone")]
    DestinationGone(i64),
    /// A person has switched the destination off.
    #[error("destination `{name}` takes no messages for now")]
    DestinationDisabled {
        /// Row id.
        id: i64,
        /// Its name.
        name: String,
    },
    /// The job that a click made is gone, and with it what would answer the click.
    #[error("job {0} has no interaction to answer")]
    InteractionGone(JobId),
    /// The click is too long ago to be answered.
    #[error("the click that made job {0} is too long ago to be answered")]
    InteractionExpired(JobId),
    /// A destination's policy for unknown outcomes is no word that is known.
    #[error("destination `{name}` has the policy `{policy}` for unknown outcomes")]
    UnknownPolicy {
        /// The destination's name.
        name: String,
        /// Its policy.
        policy: String,
    },
    /// A destination is of a kind that this worker does not know.
    #[error("destination `{name}` is of the kind `{kind}`, which this worker does not know")]
    UnknownChannel {
        /// The destination's name.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// A destination has become another kind since its message was rendered.
    #[error("the message was rendered for `{rendered}`, but destination `{name}` is now of the kind `{kind}`")]
    ChannelChanged {
        /// The destination's name.
        name: String,
        /// Its kind now.
        kind: String,
        /// Its kind then.
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
            Self::InstallationDisabled { integration_id, organization_id, .. } => {
                wait(WaitReason::InstallationDisabled, installation_cause(*integration_id, *organization_id), 0)
            }
            Self::Reauthentication { identity_id, version, .. } => {
                wait(WaitReason::Reauthentication, identity_cause(*identity_id), *version)
            }
            Self::DestinationDisabled { id, .. } => wait(WaitReason::Hold, destination_cause(*id), 0),
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
                format!("Switch account {account} on with `dispatch integrations enable`; the job goes on by itself.")
            }
            Self::Reauthentication { identity_id, .. } => {
                format!(
                    "Sign in again as identity {identity_id} (`dispatch identities list`) and store its new tokens with \
                     `dispatch identities set-tokens`; all jobs that wait for it go on."
                )
            }
            Self::RefreshBusy(_) => "Microsoft Entra or the way to it is slow; it is tried again by itself.".to_owned(),
            Self::UnreadableWorkItem { id, .. } => {
                format!("Open work item {id} in Azure DevOps and complete its type, state and project; then retry.")
            }
            Self::NoIdentity(_) => "Give the installation an identity with `dispatch tracker import`, then retry.".to_owned(),
            Self::IncompleteCheckpoint(_) => {
                "A checkpoint was written by hand: cancel the job and publish it again with a new dedupe_key.".to_owned()
            }
            Self::UnknownDestination { organization, .. } => format!(
                "Register it with `dispatch destinations register --organization {organization}`, then retry: \
                 the assignments are applied already, the job goes on from here."
            ),
            Self::DestinationGone(_) => {
                "Cancel this follow-up: its message cannot be sent any more. Register the destination again for later ones."
                    .to_owned()
            }
            Self::DestinationDisabled { name, .. } => {
                format!("Switch destination `{name}` on with `dispatch destinations enable`; the job goes on by itself.")
            }
            Self::InteractionGone(_) => "Cancel this follow-up: nobody can be answered any more.".to_owned(),
            Self::InteractionExpired(_) => EXPIRED_HINT.to_owned(),
            Self::UnknownPolicy { name, .. } => {
                format!("Register destination `{name}` again, with the policy `resend` or `hold`.")
            }
            Self::UnknownChannel { name, .. } => {
                format!(
                    "Register destination `{name}` again with a kind that `dispatch destinations` lists, or start a worker that knows it."
                )
            }
            Self::ChannelChanged { name, rendered, .. } => {
                format!("Register destination `{name}` again with the kind `{rendered}`, then retry; or cancel this job.")
            }
        }
    }
}

const fn wait(reason: WaitReason, key: String, observed: i64) -> Class {
    Class::Wait(WaitOn { reason, key, observed })
}
