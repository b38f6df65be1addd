//! The stored facts of an event, and the event that is built from them.

use serde::Deserialize;
use serde_json::Value;

use super::{
    ACCEPTED, About, Accepted, CANCELLED, Ended, FOLLOW_UP, Failure, OUTCOME_SCHEMA, Outcome,
    PARKED, Parked, ParkedFollowUp, REFUSED, Refused, SUCCEEDED, Skipped, WAITING, Waiting,
    WaitingForConfiguration, WaitingForFollowUp, event_of,
};
use crate::job::{JobId, JobState, WaitReason};

/// The facts of an event, stored until it is published: the fields of all events in one flat
/// structure. A field that a statement omits or sets to null is absent.
#[derive(Debug, Clone, Deserialize)]
pub struct Facts {
    event: String,
    job_id: Option<JobId>,
    source: Option<String>,
    dedupe_key: Option<String>,
    organization: Option<String>,
    state: Option<JobState>,
    reason: Option<WaitReason>,
    wait_key: Option<String>,
    code: Option<String>,
    message: Option<String>,
    hint: Option<String>,
    skipped: Option<Skipped>,
    configuration: Option<Value>,
    follow_up: Option<ParkedFollowUp>,
    message_id: Option<String>,
    detail: Option<String>,
    dead_letter_id: Option<i64>,
    producer: Option<String>,
    at: String,
}

/// Stored facts that match no event of these types.
#[derive(Debug, thiserror::Error)]
#[error("the stored event `{0}` is unknown to this worker")]
pub struct UnknownEvent(String);

impl Facts {
    /// Returns the same facts as the answer to a repeated message: the event of the job's current
    /// state, or [`ACCEPTED`] if that state is not an outcome and no follow-up is parked.
    #[must_use]
    pub fn as_answer(mut self) -> Self {
        let standing = self.state.and_then(|state| event_of(state, self.reason));
        let or_else = if self.follow_up.is_some() {
            FOLLOW_UP
        } else {
            ACCEPTED
        };
        self.event = standing.unwrap_or_else(|| or_else.to_owned());
        self
    }

    fn about(&self) -> Option<About> {
        Some(About {
            schema: OUTCOME_SCHEMA,
            job_id: self.job_id?,
            source: self.source.clone()?,
            dedupe_key: self.dedupe_key.clone()?,
            organization: self.organization.clone()?,
            state: self.state?,
            at: self.at.clone(),
        })
    }

    fn waiting(self) -> Option<Waiting> {
        let (job, error) = (self.about()?, self.code.is_some().then(|| self.failure()));
        Some(Waiting {
            job,
            reason: self.reason?,
            wait_key: self.wait_key?,
            error,
            skipped: self.skipped,
        })
    }

    /// Returns the event of a parked follow-up. Its reason is `children`, because the job waits
    /// for this follow-up in addition to its own reason.
    fn follow_up(self) -> Option<WaitingForFollowUp> {
        let (reason, wait_key) = (WaitReason::Children, WaitReason::Children.word().to_owned());
        let waiting = Waiting {
            job: self.about()?,
            reason,
            wait_key,
            error: None,
            skipped: self.skipped,
        };
        Some(WaitingForFollowUp {
            waiting,
            follow_up: self.follow_up?,
        })
    }

    fn failure(&self) -> Failure {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Failure {
            code: text(&self.code),
            message: text(&self.message),
            hint: text(&self.hint),
        }
    }

    fn outcome(self) -> Option<Outcome> {
        if self.event == REFUSED {
            let Self {
                producer,
                source,
                dedupe_key,
                message_id,
                at,
                ..
            } = self;
            let (code, detail, dead_letter_id) = (self.code?, self.detail?, self.dead_letter_id);
            let schema = OUTCOME_SCHEMA;
            let refused = Refused {
                schema,
                producer,
                source,
                dedupe_key,
                message_id,
                code,
                detail,
                dead_letter_id,
                at,
            };
            return Some(Outcome::Refused(refused));
        }
        if self.event == FOLLOW_UP {
            return self.follow_up().map(Outcome::WaitingForFollowUp);
        }
        if let Some(reason) = self.event.strip_prefix(WAITING) {
            return match reason.parse().ok()? {
                WaitReason::Children => None,
                WaitReason::Configuration => {
                    let (configuration, waiting) = (self.configuration.clone(), self.waiting()?);
                    Some(Outcome::WaitingForConfiguration(WaitingForConfiguration {
                        waiting,
                        configuration,
                    }))
                }
                WaitReason::Reauthentication => {
                    self.waiting().map(Outcome::WaitingForReauthentication)
                }
                WaitReason::InstallationDisabled => {
                    self.waiting().map(Outcome::WaitingForInstallation)
                }
                WaitReason::Hold => self.waiting().map(Outcome::WaitingForHold),
                WaitReason::Version => self.waiting().map(Outcome::WaitingForVersion),
            };
        }
        let (job, skipped) = (self.about()?, self.skipped.clone());
        match self.event.as_str() {
            ACCEPTED => Some(Outcome::Accepted(Accepted {
                job,
                reason: self.reason,
            })),
            SUCCEEDED => Some(Outcome::Succeeded(Ended { job, skipped })),
            CANCELLED => Some(Outcome::Cancelled(Ended { job, skipped })),
            PARKED => {
                let error = self.failure();
                Some(Outcome::Parked(Parked {
                    job,
                    code: error.code.clone(),
                    hint: error.hint.clone(),
                    error,
                    skipped,
                }))
            }
            _ => None,
        }
    }
}

impl TryFrom<Facts> for Outcome {
    type Error = UnknownEvent;

    fn try_from(facts: Facts) -> Result<Self, UnknownEvent> {
        let event = facts.event.clone();
        facts.outcome().ok_or(UnknownEvent(event))
    }
}
