//! Announcements of the worker: outcome events on `dispatch.events`, and replies with the same
//! bodies. The store keeps [`Facts`] with the change they describe. The worker publishes an
//! [`Outcome`] built from them, so that only these types define the wire format.

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

/// A job's row was inserted.
pub const ACCEPTED: &str = "job.accepted";
/// A job and all its follow-ups are done.
pub const SUCCEEDED: &str = "job.succeeded";
/// A job is parked until an operator acts.
pub const PARKED: &str = "job.parked";
/// A job was ended by an operator or a producer.
pub const CANCELLED: &str = "job.cancelled";
/// A message did not become a job.
pub const REFUSED: &str = "message.refused";
/// A follow-up of a job is parked. It does not run again, and the job does not succeed, until an
/// operator acts.
pub const FOLLOW_UP: &str = "job.waiting.follow_up";
/// The prefix of the reason why a job waits.
const WAITING: &str = "job.waiting.";

/// The outcome of a message or of its job. `event` names it, and is the routing key on
/// `dispatch.events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "outcome")]
#[serde(tag = "event")]
pub enum Outcome {
    /// The message became a job.
    #[serde(rename = "job.accepted")]
    Accepted(Accepted),
    /// The job and all its follow-ups are done.
    #[serde(rename = "job.succeeded")]
    Succeeded(Ended),
    /// The job was ended by an operator or a producer.
    #[serde(rename = "job.cancelled")]
    Cancelled(Ended),
    /// The job is parked until an operator acts.
    #[serde(rename = "job.parked")]
    Parked(Parked),
    /// The job waits until an account is chosen.
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
    /// The job waits for a worker that supports its schema version.
    #[serde(rename = "job.waiting.version")]
    WaitingForVersion(Waiting),
    /// A follow-up of the job is parked until an operator acts, and the job waits for it.
    #[serde(rename = "job.waiting.follow_up")]
    WaitingForFollowUp(WaitingForFollowUp),
    /// The message did not become a job; it is kept as a dead letter.
    #[serde(rename = "message.refused")]
    Refused(Refused),
}

/// The fields that every event of a job has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct About {
    /// Version of the event schema, 1; not the schema version of the job.
    #[schemars(extend("const" = OUTCOME_SCHEMA))]
    pub schema: i64,
    /// Id of the job, assigned when it was accepted.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub job_id: JobId,
    /// The source of the job.
    pub source: String,
    /// The dedupe key of the job.
    pub dedupe_key: String,
    /// The organization's slug; empty if a job with a newer schema does not have one.
    pub organization: String,
    /// State of the job at the time of the event.
    pub state: JobState,
    /// Time of the event on the database's clock: RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

/// The job's row was inserted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accepted {
    /// The job.
    #[serde(flatten)]
    pub job: About,
    /// Why the job waits, if its state is `waiting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<WaitReason>,
}

/// The counts of what a job's stages skipped, by kind and reason.
pub type Skipped = BTreeMap<String, BTreeMap<String, u32>>;

/// Formats the counts on one line: `assignments: 1 unresolved; events: 2 duplicate, 1 malformed`.
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

/// The job has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// The job.
    #[serde(flatten)]
    pub job: About,
    /// Counts of skipped items by kind (`events`, `work_items`, `assignments`) and reason; absent
    /// if none was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
}

/// The job is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parked {
    /// The job.
    #[serde(flatten)]
    pub job: About,
    /// Stable code, as in `error`.
    pub code: String,
    /// What an operator can do, as in `error`.
    pub hint: String,
    /// The failure that parked the job.
    pub error: Failure,
    /// Counts of skipped items by kind (`events`, `work_items`, `assignments`) and reason; absent
    /// if none was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
}

/// The failure because of which a job is parked or waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Stable code in lowercase with dots, such as `azure_devops.refused`.
    pub code: String,
    /// The error and its causes.
    pub message: String,
    /// What an operator can do.
    pub hint: String,
}

/// The job waits until a cause is resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// The job.
    #[serde(flatten)]
    pub job: About,
    /// Why the job waits.
    pub reason: WaitReason,
    /// What the job waits for, such as `identity:7` or `schema:2`. Jobs with the same key wait for
    /// the same thing.
    pub wait_key: String,
    /// The failure that made the job wait; absent if no failure did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Counts of skipped items by kind (`events`, `work_items`, `assignments`) and reason; absent
    /// if none was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<Skipped>,
}

/// The job waits until an account is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingForConfiguration {
    /// The job, and why it waits.
    #[serde(flatten)]
    pub waiting: Waiting,
    /// The template: `reason`, `no_accounts`, `choices` (each `account_id`, `name`), `fields`,
    /// `help`, `html`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
}

/// A follow-up of the job is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingForFollowUp {
    /// The job, with the reason and the wait key `children`.
    #[serde(flatten)]
    pub waiting: Waiting,
    /// The follow-up and its failure.
    pub follow_up: ParkedFollowUp,
}

/// A follow-up that is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedFollowUp {
    /// Id of the follow-up, for `dispatch jobs show` and `dispatch jobs retry`.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub job_id: JobId,
    /// Pipeline of the follow-up: `assignee_sync` or `messaging`.
    pub pipeline: String,
    /// Stable code, as in `error` of a parked job.
    pub code: String,
    /// The error and its causes.
    pub message: String,
    /// What an operator can do.
    pub hint: String,
}

/// The message did not become a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// Version of the event schema, 1; not the schema version of the message.
    #[schemars(extend("const" = OUTCOME_SCHEMA))]
    pub schema: i64,
    /// The RabbitMQ user that published the message, if the message names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// The source, if the message names one that its producer may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The dedupe key, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedupe_key: Option<String>,
    /// AMQP `message_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Stable reason code.
    pub code: String,
    /// Why the message was refused, and what was expected.
    pub detail: String,
    /// Id of the dead letter; absent if the message was not kept because its producer has too many
    /// dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter_id: Option<i64>,
    /// Time of the event on the database's clock: RFC 3339, UTC.
    #[schemars(extend("format" = "date-time"))]
    pub at: String,
}

/// Returns the event of a job that has reached `state`, or `None` if it waits for follow-ups,
/// which is not an outcome.
#[must_use]
pub fn event_of(state: JobState, reason: Option<WaitReason>) -> Option<String> {
    match (state, reason) {
        (JobState::Ready | JobState::Running, _)
        | (JobState::Waiting, None | Some(WaitReason::Children)) => None,
        (JobState::Waiting, Some(reason)) => Some(format!("{WAITING}{reason}")),
        (JobState::Succeeded, _) => Some(SUCCEEDED.to_owned()),
        (JobState::Cancelled, _) => Some(CANCELLED.to_owned()),
        (JobState::Parked, _) => Some(PARKED.to_owned()),
    }
}

impl Outcome {
    /// Returns the common fields of a job's event, or `None` for a message that did not become a
    /// job.
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
