//! Chooses the account of a job on the page of its link. The link is the permission: it names one
//! version of one job, and the accounts are those that the job itself has found.

use super::OperationError;
use super::configure::configure;
use crate::job::{JobState, WaitReason};
use crate::pipelines::configuration_link::LinkedJob;
use crate::pipelines::dispatch::{CHOICE, Configuration};
use crate::store::{ActionResult, Actor, JobRow, Request, Role, Store, Target};

/// The longest account id that is read, in bytes.
const ACCOUNT_BYTES: usize = 200;
/// The actor of the audit log.
const LINK: &str = "link";

/// A job that waits for a choice, as the page shows it.
#[derive(Debug)]
pub struct Offer {
    /// The job.
    pub job: JobRow,
    /// What the job says of the choice.
    pub configuration: Configuration,
}

/// Returns the job of a link; `None` if it does not wait any more.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn offer(store: &Store, linked: LinkedJob) -> Result<Option<Offer>, OperationError> {
    let Some(job) = store.job(linked.job).await? else {
        return Ok(None);
    };
    let is_same = job.generation == linked.generation.0 && job.epoch == linked.epoch.0;
    let waits =
        job.state == JobState::Waiting && job.wait_reason() == Some(WaitReason::Configuration);
    if !is_same || !waits {
        return Ok(None);
    }
    let checkpoints = store.checkpoints(linked.job).await?;
    let of_stage = checkpoints
        .into_iter()
        .rfind(|one| one.generation == job.generation && one.stage == CHOICE);
    let output = of_stage.map(|checkpoint| checkpoint.output);
    let configuration = output.and_then(|output| serde_json::from_value(output).ok());
    Ok(configuration.map(|configuration| Offer { job, configuration }))
}

/// Sets the account that a person has chosen on the page of a link.
///
/// # Errors
/// [`OperationError::Invalid`] for an account that was not offered, and [`OperationError::Store`].
pub async fn choose_account(
    store: &Store,
    offer: &Offer,
    account: &str,
    request: uuid::Uuid,
) -> Result<ActionResult, OperationError> {
    let account = account.trim();
    let choices = &offer.configuration.choices;
    let is_offered = choices.iter().any(|choice| choice.account_id == account);
    let may_be_any = choices.is_empty() && (1..=ACCOUNT_BYTES).contains(&account.len());
    if !is_offered && !may_be_any {
        return Err(OperationError::Invalid(
            "expected one of the accounts that are offered, got another one".to_owned(),
        ));
    }
    let actor = Actor {
        who: LINK.to_owned(),
        role: Role::Producer,
        reason: Some("chosen on the page of the link".to_owned()),
        request: Some(Request {
            id: request,
            token: LINK.to_owned(),
            key: None,
        }),
    };
    let target = Target::Version {
        id: offer.job.id,
        generation: crate::job::Generation(offer.job.generation),
        epoch: crate::job::Epoch(offer.job.epoch),
    };
    configure(store, &actor, &target, account).await
}
