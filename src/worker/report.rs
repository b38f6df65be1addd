//! Logs and counts the outcomes of stages: INFO for a finished job, WARN for a retry, ERROR for a
//! parked job.

use super::spans;
use crate::engine::{AttemptOutcome, Commit, Position, Record};
use crate::fault::StageFault;
use crate::job::{EffectState, JobState};
use crate::store::{Committed, Run};
use crate::telemetry::names;

/// Reports that Postgres or RabbitMQ is unavailable.
pub(super) fn unavailable(fault: &StageFault) {
    metrics::counter!(names::INFRASTRUCTURE_ERRORS, "code" => fault.code()).increment(1);
    tracing::warn!(
        error.code = fault.code(),
        error = fault.message(),
        "Postgres or RabbitMQ is unavailable; the job waits, no attempt is used"
    );
}

/// Reports the outcome of a stage that was committed.
pub(super) fn committed<C>(
    run: Run<'_>,
    at: &Position<'_>,
    commit: &Commit<C>,
    committed: &Committed,
) {
    spans::committed(commit);
    let pipeline = run.job.pipeline.clone();
    let outcome = match &commit.record {
        Record::Checkpoint(_) => "succeeded",
        Record::Attempt(attempt) => attempt.outcome.word(),
    };
    metrics::histogram!(names::STAGE_SECONDS, "pipeline" => pipeline.clone(), "stage" => at.stage.name, "outcome" => outcome)
        .record(run.took.as_secs_f64());
    if commit
        .effect
        .as_ref()
        .is_some_and(|effect| effect.state == EffectState::Unknown)
    {
        metrics::counter!(names::UNKNOWN_EFFECTS).increment(1);
    }
    if let Some(effect) = &commit.effect {
        metrics::counter!(names::EFFECTS, "pipeline" => pipeline.clone(), "stage" => at.stage.name, "outcome" => effect.state.word())
            .increment(1);
    }
    if let Record::Attempt(attempt) = &commit.record {
        metrics::counter!(names::ATTEMPTS, "pipeline" => pipeline.clone(), "stage" => at.stage.name, "outcome" => outcome)
            .increment(1);
        let failure = &attempt.failure;
        match attempt.outcome {
            AttemptOutcome::Retried => tracing::warn!(
                stage = at.stage.name,
                attempt = run.job.attempt.0,
                error.code = failure.code,
                error = failure.message,
                "an attempt failed; the stage is retried later"
            ),
            AttemptOutcome::Waited => {
                tracing::info!(
                    stage = at.stage.name,
                    error.code = failure.code,
                    reason = failure.message,
                    "the job waits"
                );
            }
            AttemptOutcome::Parked => tracing::error!(
                stage = at.stage.name,
                error.code = failure.code,
                error = failure.message,
                hint = failure.hint,
                "parked: a person must look"
            ),
        }
    }
    match committed.state {
        JobState::Succeeded => tracing::info!("the job succeeded"),
        JobState::Parked
        | JobState::Ready
        | JobState::Running
        | JobState::Waiting
        | JobState::Cancelled => {}
    }
    if let Some(parent) = committed.parent_done {
        tracing::info!(parent.id = %parent, "the last follow-up is done; the parent has succeeded");
    }
    if !matches!(committed.state, JobState::Running) {
        metrics::counter!(names::JOBS, "pipeline" => pipeline, "state" => committed.state.word())
            .increment(1);
    }
}
