//! Checks that an output written by hand names nothing that the job's own input does not: no other
//! organization, account, identity, group or recipient.

use super::OperationError;
use crate::pipelines::by_hand::{InputNames, Name, input_names};
use crate::store::{LockedJob, Transaction, query_opt};
use crate::tracker::{Allowed, allowed_by_ids, allowed_by_request, group_outside};

/// The vendor's answer about the identity, if an earlier run has stored one.
const PROFILE: &str = "
    SELECT output ->> 'id' AS profile FROM checkpoints
    WHERE job_id = $1 AND stage = 'retrieve_user' AND output ->> 'id' = $2 LIMIT 1";

/// Checks every name of an output.
///
/// # Errors
/// [`OperationError::Invalid`] names the first one that the input does not name.
pub(super) async fn check(
    tx: &Transaction<'_>,
    job: &LockedJob,
    payload: &str,
    names: &[Name],
) -> Result<(), OperationError> {
    let input = input_names(&job.row.pipeline, payload).map_err(OperationError::Invalid)?;
    let (allowed, recipient) = match &input {
        InputNames::Request { account, identity } => {
            let account = job.account.as_deref().or(account.as_deref());
            let organization = &job.row.organization;
            let found = allowed_by_request(tx, organization, account, identity.as_deref()).await?;
            (found, None)
        }
        InputNames::Assignee(sync) => {
            let found = allowed_by_ids(tx, sync.organization_id, sync.integration_id).await?;
            (found, None)
        }
        InputNames::Message(to) => (Allowed::default(), Some(*to)),
    };
    let mut groups = Vec::new();
    for name in names {
        let is_named = match name {
            Name::Group(id) => {
                groups.push(*id);
                true
            }
            Name::Profile(id) => query_opt(tx, PROFILE, &[&job.row.id.0, id])
                .await?
                .is_some(),
            Name::Recipient(to) => recipient == Some(*to),
            other => is_within(&allowed, other),
        };
        if !is_named {
            return Err(outside(&describe(name)));
        }
    }
    match group_outside(tx, allowed.organization_id, &groups).await? {
        Some(id) => Err(outside(&format!("the group {id}"))),
        None => Ok(()),
    }
}

fn is_within(allowed: &Allowed, name: &Name) -> bool {
    let account = allowed.installation.as_ref();
    match name {
        Name::Organization(id) => allowed.organization_id == Some(*id),
        Name::Integration(id) => account.is_some_and(|found| found.integration_id == *id),
        Name::AccountId(id) => account.is_some_and(|found| found.account_id == *id),
        Name::AccountName(name) => account.is_some_and(|found| found.account_name == *name),
        Name::Identity(id) => allowed.identity_id == Some(*id),
        Name::InstallationIdentity => !allowed.names_identity,
        Name::Group(_) | Name::Profile(_) | Name::Recipient(_) | Name::FollowUp(_) => false,
    }
}

fn describe(name: &Name) -> String {
    match name {
        Name::Organization(id) => format!("the organization {id}"),
        Name::Integration(id) => format!("the account {id}"),
        Name::AccountId(name) | Name::AccountName(name) => format!("the account `{name}`"),
        Name::Identity(id) => format!("the identity {id}"),
        Name::InstallationIdentity => "the identity of the installation".to_owned(),
        Name::Group(id) => format!("the group {id}"),
        Name::Profile(id) => format!("the profile `{id}`"),
        Name::Recipient(to) => format!("the recipient `{}`", to.target()),
        Name::FollowUp(target) => {
            format!("the follow-up `{target}`, which a skipped stage does not make")
        }
    }
}

fn outside(what: &str) -> OperationError {
    OperationError::Invalid(format!(
        "the output names {what}; expected only what the job's own input names"
    ))
}
