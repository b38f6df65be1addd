//! The spans of a claim and of its stages: ids and words of closed sets, nothing of a payload.

use crate::engine::{AttemptOutcome, Commit, Record, StageInfo};
use crate::store::Claim;
use crate::trace::{self, NewSpan, SpanKind};

/// The outcome of a claim or stage that ended without a commit: given up, fenced, or ended with the
/// process.
const NO_COMMIT: &str = "no_commit";

/// Returns the span of a claim.
pub(super) fn of_claim(claim: &Claim) -> NewSpan {
    let job = &claim.job;
    let mut attributes = vec![
        ("job.id", job.id.to_string().into()),
        ("job.pipeline", job.pipeline.clone().into()),
        ("job.epoch", job.epoch.0.into()),
        ("outcome", NO_COMMIT.into()),
    ];
    attributes.extend(
        job.parent
            .map(|parent| ("job.parent_id", parent.to_string().into())),
    );
    NewSpan {
        name: format!("job {}", job.pipeline).into(),
        kind: SpanKind::Consumer,
        attributes,
    }
}

/// Returns the span of the stage due.
pub(super) fn of_stage(claim: &Claim, stage: &StageInfo) -> NewSpan {
    let job = &claim.job;
    NewSpan {
        name: stage.name.into(),
        kind: SpanKind::Internal,
        attributes: vec![
            ("job.id", job.id.to_string().into()),
            ("job.generation", i64::from(job.generation.0).into()),
            ("stage", stage.name.into()),
            ("attempt", i64::from(job.attempt.0).into()),
            ("outcome", NO_COMMIT.into()),
        ],
    }
}

/// Notes the outcome of a stage that was committed.
pub(super) fn committed<C>(commit: &Commit<C>) {
    match &commit.record {
        Record::Checkpoint(_) => trace::note("outcome", "succeeded"),
        Record::Attempt(attempt) => {
            trace::note("outcome", attempt.outcome.word());
            match attempt.outcome {
                AttemptOutcome::Waited => trace::note("wait.code", attempt.failure.code.clone()),
                AttemptOutcome::Retried | AttemptOutcome::Parked => {
                    trace::note("error.type", attempt.failure.code.clone());
                }
            }
        }
    }
}
