//! Tells whether a message would be accepted now, by the checks that a worker makes at intake:
//! sender, form, names, organization and dedupe key. Quotas are not checked, since that would use
//! them. Nothing is changed.

use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;

use super::OperationError;
use super::possible::{JobAction, obstacle};
use crate::broker::{KEY_CANCEL, KEY_CONFIGURE, KEY_JOB};
use crate::job::JobId;
use crate::message::{
    Cancel, Configure, Envelope, Intake, Named, Refusal, Sender, WakeUp, decode_control,
    decode_intake,
};
use crate::secrets::Keyring;
use crate::store::{DeadLetter, Store, StoreError, Target};

/// A message as a worker would receive it.
#[derive(Debug)]
pub struct Candidate<'a> {
    pub body: &'a [u8],
    pub routing_key: &'a str,
    pub envelope: Envelope,
    /// The user that published it.
    pub producer: Option<&'a str>,
    pub reply_to: Option<&'a str>,
    /// The code with which it was refused.
    pub refused_with: &'a str,
}

/// Whether a message would be accepted now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Acceptance {
    /// Whether it would.
    pub accepted: bool,
    /// The code of today's refusal.
    pub code: Option<String>,
    /// What was expected and what came.
    pub detail: Option<String>,
    /// The path of the field at fault.
    pub path: Option<String>,
    /// What the answer depends on.
    pub only_if: Option<String>,
    /// The job that the message already is; publishing it again would change nothing.
    pub job: Option<JobId>,
}

/// The codes of refusals of a sender.
const OF_SENDERS: [&str; 3] = ["no_user_id", "unknown_producer", "not_permitted"];

impl<'a> Candidate<'a> {
    /// Returns a dead letter's message with another body or its own.
    #[must_use]
    pub fn of(letter: &'a DeadLetter, body: &'a [u8]) -> Self {
        let has_headers = letter.all_headers.expose_secret() != "{}";
        Self {
            body,
            routing_key: &letter.row.routing_key,
            envelope: Envelope {
                content_type: letter.content_type.clone(),
                content_encoding: letter.content_encoding.clone(),
                message_id: letter.row.message_id.clone(),
                app_id: letter.app_id.clone(),
                user_id: letter.row.producer.clone(),
                headers_too_large: has_headers && letter.row.code == "headers_too_large",
            },
            producer: letter.row.producer.as_deref(),
            reply_to: letter.reply_to.as_deref(),
            refused_with: &letter.row.code,
        }
    }
}

/// Why a check ended.
enum Stopped {
    Refused(Refusal),
    Failed(OperationError),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

/// Tells whether the message would be accepted now.
///
/// # Errors
/// [`OperationError::Store`].
pub async fn would_accept(
    store: &Store,
    keyring: &Keyring,
    candidate: &Candidate<'_>,
) -> Result<Acceptance, OperationError> {
    let mut only_if = None;
    match checked(store, keyring, candidate, &mut only_if).await {
        Ok(job) => Ok(Acceptance {
            accepted: true,
            code: None,
            detail: None,
            path: None,
            only_if,
            job,
        }),
        Err(Stopped::Refused(refusal)) => Ok(Acceptance {
            accepted: false,
            code: Some(refusal.code().to_owned()),
            detail: Some(refusal.to_string()),
            path: refusal.path().map(str::to_owned),
            only_if: None,
            job: None,
        }),
        Err(Stopped::Failed(error)) => Err(error),
    }
}

async fn checked(
    store: &Store,
    keyring: &Keyring,
    candidate: &Candidate<'_>,
    only_if: &mut Option<String>,
) -> Result<Option<JobId>, Stopped> {
    let sender = sender(store, candidate, only_if).await?;
    let Candidate { body, envelope, .. } = candidate;
    match candidate.routing_key {
        KEY_JOB => {
            let intake = decode_intake(body, envelope, keyring, JobId::fresh())?;
            admitted(store, &sender, candidate, &intake).await
        }
        KEY_CONFIGURE => {
            let configure: Configure = decode_control(body, envelope)?;
            configured(store, &sender, configure.job_id).await
        }
        KEY_CANCEL => {
            let cancel: Cancel = decode_control(body, envelope)?;
            sender.may_name(&[Named::Source(&cancel.source)])?;
            Ok(None)
        }
        key if key.starts_with("wake.") => {
            let wake_up = serde_json::from_slice::<WakeUp>(body);
            wake_up.map_err(|error| Refusal::WakeUp(error.to_string()))?;
            Ok(None)
        }
        key => Err(Refusal::RoutingKey(key.to_owned()).into()),
    }
}

/// Returns whose message a replay would be. A message without a known producer is trusted, because
/// the person who replays it is. Whether workers trust every user is their setting, which is not
/// known here.
async fn sender(
    store: &Store,
    candidate: &Candidate<'_>,
    only_if: &mut Option<String>,
) -> Result<Sender, Stopped> {
    let Some(name) = candidate.producer else {
        return Ok(Sender::Trusted(None));
    };
    if let Some(producer) = store.producer(name).await? {
        return Ok(Sender::Known(producer.into()));
    }
    if OF_SENDERS.contains(&candidate.refused_with) {
        return Err(Refusal::UnknownProducer(name.to_owned()).into());
    }
    *only_if = Some(format!(
        "the workers trust every user (DISPATCH_TRUST_PRODUCERS), since {name:?} is not a registered producer"
    ));
    Ok(Sender::Trusted(Some(name.to_owned())))
}

async fn admitted(
    store: &Store,
    sender: &Sender,
    candidate: &Candidate<'_>,
    intake: &Intake,
) -> Result<Option<JobId>, Stopped> {
    let about = intake.about();
    sender.may_name(&about.names(candidate.reply_to))?;
    about.check_delay(OffsetDateTime::now_utc())?;
    let organization = about.organization;
    if !organization.is_empty() && !store.has_organization(organization).await? {
        return Err(Refusal::UnknownOrganization(organization.to_owned()).into());
    }
    match store.known_key(about.source, about.dedupe_key).await? {
        Some((job, digest)) if digest == about.digest.as_slice() => Ok(Some(job)),
        Some((job, _)) => Err(Refusal::DedupeConflict(job.to_string()).into()),
        None => Ok(None),
    }
}

async fn configured(store: &Store, sender: &Sender, id: JobId) -> Result<Option<JobId>, Stopped> {
    let row = store.job_of(&Target::Id(id)).await?;
    let row = row.ok_or(Refusal::NoSuchJob)?;
    let names = [
        Named::Source(&row.source),
        Named::Organization(&row.organization),
    ];
    sender.may_name(&names).map_err(|_| Refusal::NoSuchJob)?;
    match obstacle(JobAction::Configure, &row) {
        None => Ok(None),
        Some(detail) => Err(Refusal::Invalid {
            path: id.to_string(),
            detail,
        }
        .into()),
    }
}
