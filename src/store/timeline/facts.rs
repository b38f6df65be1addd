//! The facts that the spans of a timeline are made from, and the spans.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::super::job_row::JobRow;
use super::marks::{ActionMark, EndMark};
use crate::job::words;

/// A run of a stage that left a record: a checkpoint or an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) kind: SpanKind,
    pub(crate) generation: i32,
    pub(crate) stage: String,
    pub(crate) attempt: i32,
    /// 0 for a person, who passed the stage.
    pub(crate) replica: i64,
    pub(crate) epoch: i64,
    pub(crate) from: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
    /// The error code of an attempt.
    pub(crate) code: Option<String>,
}

/// Everything that is known about the course of a job.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) row: JobRow,
    /// In any order.
    pub(crate) runs: Vec<Run>,
    /// In the order of time.
    pub(crate) actions: Vec<ActionMark>,
    /// The ends of replicas that ran it, in the order of time.
    pub(crate) ends: Vec<EndMark>,
    /// Whether there are older runs that were not read.
    pub(crate) is_cut: bool,
}

impl Facts {
    /// Returns when the timeline ends: at the end of the job, or now.
    pub(crate) fn until(&self) -> OffsetDateTime {
        let end = self.row.finished_at.unwrap_or(self.row.now);
        end.max(self.row.created_at)
    }
}

words! {
    /// What a job did, or waited for.
    SpanKind {
        /// A stage that was finished.
        Stage = "stage",
        /// A person passed the stage.
        ByHand = "by_hand",
        /// An attempt that is tried again.
        Retried = "retried",
        /// An attempt after which the job waited for a cause.
        Waited = "waited",
        /// An attempt after which the job needed a person.
        Failed = "failed",
        /// The stage runs now.
        Running = "running",
        /// The owner stores a result and goes on with the next stage.
        Commit = "commit",
        /// Due, and not claimed yet.
        Queued = "queued",
        /// Not due yet: after a failure, or because it was accepted for later.
        Backoff = "backoff",
        /// Waits for the end of a hold.
        Held = "held",
        /// Waits for another cause.
        Waits = "waits",
        /// Waits for its follow-ups.
        FollowUps = "follow_ups",
        /// Needs a person.
        Parked = "parked",
        /// A replica had it and died; nothing was recorded.
        OwnerDied = "owner_died",
        /// Earlier attempts that were not read.
        NotShown = "not_shown",
    }
}

impl SpanKind {
    /// Returns whether a stage was running.
    #[must_use]
    pub const fn is_work(self) -> bool {
        matches!(
            self,
            Self::Stage
                | Self::ByHand
                | Self::Retried
                | Self::Waited
                | Self::Failed
                | Self::Running
        )
    }
}

/// A part of a job's course. Spans follow each other without a gap, from the time when the job was
/// accepted until its end or now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Span {
    /// What it is.
    pub kind: SpanKind,
    /// In words: `queued`, `held by lane:messaging`, `deliver_message, attempt 2`.
    pub text: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub from: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub until: OffsetDateTime,
    /// The stage that ran.
    pub stage: Option<String>,
    /// The job's generation, of a run.
    pub generation: Option<i32>,
    /// The number of the attempt, of a run.
    pub attempt: Option<i32>,
    /// The replica that ran it, or that died.
    pub replica: Option<i64>,
    /// The error code of an attempt.
    pub code: Option<String>,
}

impl Span {
    /// Returns its length in milliseconds.
    #[must_use]
    pub fn millis(&self) -> i64 {
        i64::try_from((self.until - self.from).whole_milliseconds()).unwrap_or(i64::MAX)
    }
}
