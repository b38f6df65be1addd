//! What the worker announces: outcome events on `dispatch.events`, and the same bodies as replies. The store keeps [`Facts`] with
//! the change they are about; what is published is an [`Outcome`] made of them, so that these types alone decide the wire.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::{JobId, JobState, WaitReason};

/// The schema of the events that this worker announces.
pub const OUTCOME_SCHEMA: i64 = 1;

/// A job's row was made.
pub const ACCEPTED: &str = "job.accepted";
/// A job and all its follow-ups are done.
pub const SUCCEEDED: &str = "job.succeeded";
/// A job needs a person.
pub const PARKED: &str = "job.parked";
/// A job was ended by a person or a producer.
pub const CANCELLED: &str = "job.cancelled";
/// A message did not become a job.
pub const REFUSED: &str = "message.refused";
/// Before the reason why a job waits.
const WAITING: &str = "job.waiting.";

/// What became of a message or of its job. `event` tells which, and is the routing key on `dispatch.events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "outcome")]
#[serde(tag = "event")]
pub enum Outcome {
    /// The message is a job now.
    #[serde(rename = "job.accepted")]
    Accepted(Accepted),
    /// The job and all its follow-ups are done.
    #[serde(rename = "job.succeeded")]
    Succeeded(Ended),
    /// The job was ended by a person or a producer.
    #[serde(rename = "job.cancelled")]
    Cancelled(Ended),
    /// A person must look at the job.
    #[serde(rename = "job.parked")]
    Parked(Parked),
    /// The job waits for somebody to choose an account.
    #[serde(rename = "job.waiting.configuration")]
    WaitingForConfiguration(WaitingForConfiguration),
    /// The job waits for an identity's tokens.
    #[serde(rename = "job.waiting.reauthentication")]
    WaitingForReauthentication(Waiting),
    /// The job waits for an installation to be enabled.
    #[serde(rename = "job.waiting.installation_disabled")]
    WaitingForInstallation(Waiting),
    /// The job waits for a hold to be released.
    #[serde(rename = "job.waiting.hold")]
    WaitingForHold(Waiting),
    /// The job waits for a worker that knows its version.
    #[serde(rename = "job.waiting.version")]
    WaitingForVersion(Waiting),
    /// The message did not become a job; it is kept as a dead letter.
    #[serde(rename = "message.refused")]
    Refused(Refused),
}

/// What every event of a job says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct About {
    /// 1; of these events, not of the job.
    #[schemars(extend("const" = OUTCOME_SCHEMA))]
    pub schema: i64,
    /// The job, made when it was accepted.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub job_id: JobId,
    /// The producer.
    pub source: String,
    /// The producer's key.
    pub dedupe_key: String,
    /// The tenant's slug; empty where a job of a newer schema does not say it.
    pub organization: String,
    /// Where the job stood at that time.
    pub state: JobState,
    /// When, on the database's clock: RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

/// The row was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// Which job.
    #[serde(flatten)]
    pub job: About,
    /// Why it waits, where its state is `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<WaitReason>,
}

/// Nothing more will happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// Which job.
    #[serde(flatten)]
    pub job: About,
}

/// A person must look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parked {
    /// Which job.
    #[serde(flatten)]
    pub job: About,
    /// Stable code, as in `error`.
    pub code: String,
    /// What a person can do, as in `error`.
    pub hint: String,
    /// At what.
    pub error: Failure,
}

/// Why a job is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Stable, lowercase, dotted: `azure_devops.refused`.
    pub code: String,
    /// The chain of causes.
    pub message: String,
    /// What a person can do.
    pub hint: String,
}

/// The job waits for a cause to go away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// Which job.
    #[serde(flatten)]
    pub job: About,
    /// Why.
    pub reason: WaitReason,
    /// For what: `identity:7`, `schema:2`. Jobs with the same one wait for the same thing.
    pub wait_key: String,
}

/// The job waits for an account to be chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingForConfiguration {
    /// Which job, and why.
    #[serde(flatten)]
    pub waiting: Waiting,
    /// The template: `reason`, `no_accounts`, `choices` (each `account_id`, `name`), `fields`, `help`, `html`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
}

/// The message did not become a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// 1; of these events, not of the message.
    #[schemars(extend("const" = OUTCOME_SCHEMA))]
    pub schema: i64,
    /// The producer, where the message says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its key, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<String>,
    /// AMQP `message_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Stable reason code.
    pub code: String,
    /// What would have been right.
    pub detail: String,
    /// Its number among the dead letters.
    pub dead_letter_id: i64,
    /// When, on the database's clock: RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

/// What is stored of an event until it is published: everything that any event says, flat. Fields that a statement leaves out or
/// that are null are not there.
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
    configuration: Option<Value>,
    message_id: Option<String>,
    detail: Option<String>,
    dead_letter_id: Option<i64>,
    at: String,
}

/// Stored facts that make no event of these types.
#[derive(Debug, thiserror::Error)]
#[error("the stored event `{0}` is not one that this worker knows")]
pub struct UnknownEvent(String);

/// The event of a job that has come to `state`; waiting for follow-ups is no outcome.
#[must_use]
pub fn event_of(state: JobState, reason: Option<WaitReason>) -> Option<String> {
    match (state, reason) {
        (JobState::Ready | JobState::Running, _) | (JobState::Waiting, None | Some(WaitReason::Children)) => None,
        (JobState::Waiting, Some(reason)) => Some(format!("{WAITING}{reason}")),
        (JobState::Succeeded, _) => Some(SUCCEEDED.to_owned()),
        (JobState::Cancelled, _) => Some(CANCELLED.to_owned()),
        (JobState::Parked, _) => Some(PARKED.to_owned()),
    }
}

impl Facts {
    /// The same facts as the answer to a message that came again: the event of where the job stands now, [`ACCEPTED`] where that
    /// is no outcome.
    #[must_use]
    pub fn as_answer(mut self) -> Self {
        let standing = self.state.and_then(|state| event_of(state, self.reason));
        self.event = standing.unwrap_or_else(|| ACCEPTED.to_owned());
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
        Some(Waiting { job: self.about()?, reason: self.reason?, wait_key: self.wait_key? })
    }

    fn failure(&self) -> Failure {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Failure { code: text(&self.code), message: text(&self.message), hint: text(&self.hint) }
    }

    fn outcome(self) -> Option<Outcome> {
        if self.event == REFUSED {
            let Self { source, dedupe_key, message_id, at, .. } = self;
            let (code, detail, dead_letter_id) = (self.code?, self.detail?, self.dead_letter_id?);
            let schema = OUTCOME_SCHEMA;
            return Some(Outcome::Refused(Refused { schema, source, dedupe_key, message_id, code, detail, dead_letter_id, at }));
        }
        if let Some(reason) = self.event.strip_prefix(WAITING) {
            return match reason.parse().ok()? {
                WaitReason::Children => None,
                WaitReason::Configuration => {
                    let (configuration, waiting) = (self.configuration.clone(), self.waiting()?);
                    Some(Outcome::WaitingForConfiguration(WaitingForConfiguration { waiting, configuration }))
                }
                WaitReason::Reauthentication => self.waiting().map(Outcome::WaitingForReauthentication),
                WaitReason::InstallationDisabled => self.waiting().map(Outcome::WaitingForInstallation),
                WaitReason::Hold => self.waiting().map(Outcome::WaitingForHold),
                WaitReason::Version => self.waiting().map(Outcome::WaitingForVersion),
            };
        }
        let job = self.about()?;
        match self.event.as_str() {
            ACCEPTED => Some(Outcome::Accepted(Accepted { job, reason: self.reason })),
            SUCCEEDED => Some(Outcome::Succeeded(Ended { job })),
            CANCELLED => Some(Outcome::Cancelled(Ended { job })),
            PARKED => {
                let error = self.failure();
                Some(Outcome::Parked(Parked { job, code: error.code.clone(), hint: error.hint.clone(), error }))
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

impl Outcome {
    /// What every event of a job says; nothing of a message that did not become one.
    #[must_use]
    pub const fn about(&self) -> Option<&About> {
        match self {
            Self::Accepted(Accepted { job, .. }) | Self::Parked(Parked { job, .. }) => Some(job),
            Self::Succeeded(ended) | Self::Cancelled(ended) => Some(&ended.job),
            Self::WaitingForConfiguration(configuration) => Some(&configuration.waiting.job),
            Self::WaitingForReauthentication(waiting)
            | Self::WaitingForInstallation(waiting)
            | Self::WaitingForHold(waiting)
            | Self::WaitingForVersion(waiting) => Some(&waiting.job),
            Self::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0195612e-9a00-7000-8000-000000000001";

    fn facts(event: &str, more: &Value) -> String {
        let mut facts = json!({
            "event": event, "job_id": ID, "source": "hooks", "dedupe_key": "k", "organization": "acme", "state": "ready",
            "at": "2026-01-02T03:04:05.000006Z"
        });
        for (name, value) in more.as_object().unwrap() {
            facts[name] = value.clone();
        }
        facts.to_string()
    }

    fn body(facts: &str) -> Value {
        let outcome = Outcome::try_from(serde_json::from_str::<Facts>(facts).unwrap()).unwrap();
        serde_json::to_value(&outcome).unwrap()
    }

    #[test]
    fn every_way_to_end_or_to_wait_has_an_event_that_reads_back() {
        let waits = WaitReason::ALL.iter().map(|reason| (JobState::Waiting, Some(*reason)));
        let others = JobState::ALL.iter().filter(|state| **state != JobState::Waiting).map(|state| (*state, None));
        let mut events = 0;
        for (state, reason) in waits.chain(others) {
            let Some(event) = event_of(state, reason) else { continue };
            let more = json!({"state": state, "reason": reason, "wait_key": "x:1", "code": "c", "message": "m", "hint": "h"});
            let body = body(&facts(&event, &more));
            assert_eq!((&body["event"], &body["schema"], &body["state"]), (&json!(event), &json!(1), &json!(state)));
            assert!(jsonschema::is_valid(&crate::message::schema::outcome(), &body), "{body}");
            let read: Outcome = serde_json::from_value(body.clone()).unwrap();
            assert_eq!(serde_json::to_value(&read).unwrap(), body);
            events += 1;
        }
        assert_eq!(events, 3 + WaitReason::ALL.len() - 1);
    }

    #[test]
    fn a_parked_job_says_at_what_in_one_object_and_in_the_two_fields_of_old() {
        let more = json!({"state": "parked", "code": "x.refused", "message": "why", "hint": "what to do"});
        let body = body(&facts(PARKED, &more));
        assert_eq!(body["error"], json!({"code": "x.refused", "message": "why", "hint": "what to do"}));
        assert_eq!((&body["code"], &body["hint"]), (&json!("x.refused"), &json!("what to do")));
    }

    #[test]
    fn an_event_says_nothing_that_is_not_its_own() {
        let more = json!({"state": "succeeded", "code": "stale", "message": "stale", "hint": "stale"});
        let body = body(&facts(SUCCEEDED, &more));
        assert!(!body.to_string().contains("stale"), "{body}");
    }

    #[test]
    fn the_answer_to_a_repeated_message_is_where_the_job_stands() {
        let answer = |more: &Value| {
            let text = facts(ACCEPTED, more);
            let facts = serde_json::from_str::<Facts>(&text).unwrap().as_answer();
            serde_json::to_value(Outcome::try_from(facts).unwrap()).unwrap()["event"].clone()
        };
        assert_eq!(answer(&json!({"state": "running"})), ACCEPTED);
        assert_eq!(answer(&json!({"state": "waiting", "reason": "children", "wait_key": "children"})), ACCEPTED);
        assert_eq!(answer(&json!({"state": "waiting", "reason": "hold", "wait_key": "d:1"})), "job.waiting.hold");
        assert_eq!(answer(&json!({"state": "succeeded"})), SUCCEEDED);
    }

    #[test]
    fn a_refusal_says_what_is_known_of_its_message() {
        let facts =
            json!({"event": REFUSED, "code": "not_json", "detail": "d", "dead_letter_id": 7, "at": "2026-01-02T03:04:05Z"});
        let body = body(&facts.to_string());
        assert!(jsonschema::is_valid(&crate::message::schema::outcome(), &body), "{body}");
        assert_eq!((&body["dead_letter_id"], body.get("source")), (&json!(7), None));
    }

    #[test]
    fn an_event_of_a_newer_worker_is_told_from_those_that_are_known() {
        let text = facts("job.renamed", &json!({}));
        assert!(Outcome::try_from(serde_json::from_str::<Facts>(&text).unwrap()).is_err());
    }
}
