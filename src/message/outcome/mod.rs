//! What the worker announces: outcome events on `dispatch.events`, and the same bodies as replies. The store keeps [`Facts`] with
//! the change they are about; what is published is an [`Outcome`] made of them, so that these types alone decide the wire.

mod facts;

use std::collections::BTreeMap;
use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::facts::{Facts, UnknownEvent};
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
/// A follow-up of a job is parked: nothing more happens to it, and the job does not succeed, until a person acts.
pub const FOLLOW_UP: &str = "job.waiting.follow_up";
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
    /// A follow-up of the job is parked: a person must look at it, and the job waits for it.
    #[serde(rename = "job.waiting.follow_up")]
    WaitingForFollowUp(WaitingForFollowUp),
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

/// What a job's stages left aside: counts by kind and reason.
pub type Skipped = BTreeMap<String, BTreeMap<String, u32>>;

/// Counts on one line: `assignments: 1 unresolved; events: 2 duplicate, 1 malformed`.
#[must_use]
pub fn counted(skipped: &Skipped) -> String {
    let mut line = String::new();
    for (kind, counts) in skipped {
        let mut before = format!("{}{kind}: ", if line.is_empty() { "" } else { "; " });
        for (reason, count) in counts {
            // Writing to a string cannot fail.
            let _ = write!(line, "{before}{count} {reason}");
            ", ".clone_into(&mut before);
        }
    }
    line
}

/// Nothing more will happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// Which job.
    #[serde(flatten)]
    pub job: About,
    /// What the job's stages left aside, by kind (`events`, `work_items`, `assignments`) and reason; not there where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
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
    /// What the job's stages left aside, by kind (`events`, `work_items`, `assignments`) and reason; not there where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
}

/// Why a job is parked, or waits.
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
    /// What the stage has met that made it wait; not there where no failure did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What the job's stages left aside, by kind (`events`, `work_items`, `assignments`) and reason; not there where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
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

/// A follow-up of the job is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingForFollowUp {
    /// Which job, with the reason and the wait key `children`.
    #[serde(flatten)]
    pub waiting: Waiting,
    /// Which follow-up, and at what.
    pub follow_up: ParkedFollowUp,
}

/// A follow-up that is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedFollowUp {
    /// Its id, for `dispatch jobs show` and `dispatch jobs retry`.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub job_id: JobId,
    /// Its pipeline: `assignee_sync` or `messaging`.
    pub pipeline: String,
    /// Stable code, as in `error` of a parked job.
    pub code: String,
    /// The chain of causes.
    pub message: String,
    /// What a person can do.
    pub hint: String,
}

/// The message did not become a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// 1; of these events, not of the message.
    #[schemars(extend("const" = OUTCOME_SCHEMA))]
    pub schema: i64,
    /// The user of RabbitMQ that published the message, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// The source, where the message names one that is its producer's.
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
    /// Its number among the dead letters; not there where it is not kept, as its producer has too many of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_id: Option<i64>,
    /// When, on the database's clock: RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

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

impl Outcome {
    /// What every event of a job says; nothing of a message that did not become one.
    #[must_use]
    pub const fn about(&self) -> Option<&About> {
        match self {
            Self::Accepted(Accepted { job, .. }) | Self::Parked(Parked { job, .. }) => Some(job),
            Self::Succeeded(ended) | Self::Cancelled(ended) => Some(&ended.job),
            Self::WaitingForConfiguration(configuration) => Some(&configuration.waiting.job),
            Self::WaitingForFollowUp(follow_up) => Some(&follow_up.waiting.job),
            Self::WaitingForReauthentication(waiting)
            | Self::WaitingForInstallation(waiting)
            | Self::WaitingForHold(waiting)
            | Self::WaitingForVersion(waiting) => Some(&waiting.job),
            Self::Refused(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
