//! Every branch in the life of a job, as a pure function from the result of a stage to what must
//! be committed.

use std::time::Duration;

use serde_json::value::RawValue;

use super::effect::Effect;
use super::kept::Kept;
use super::pipeline::{ErasedOutcome, StageInfo};
use super::skipped::Skipped;
use super::stage::{Child, Then};
use crate::fault::{
    Certainty, Class, DEADLINE_HINT, FailureKind, StageFault, WaitOn, codes, fingerprint, storable,
};
use crate::job::{EffectState, Job, words};

/// How a run of a stage ended.
#[derive(Debug)]
pub enum Ended<C> {
    Done(Box<ErasedOutcome<C>>),
    Fault(StageFault),
    /// It panicked, with this message.
    Panicked(String),
    /// It took longer than its timeout.
    TimedOut(Duration),
}

/// The state of a run, for [`decide`].
pub struct Position<'a> {
    /// The job as claimed.
    pub job: &'a Job,
    pub stage: &'a StageInfo,
    /// The stage after it in the list.
    pub next: Option<&'static str>,
    /// The number of compare-and-sets lost in this attempt so far.
    pub conflicts: u32,
    /// The stored intent, if the run had one.
    pub effect: Option<&'a Effect>,
    /// The time left until the job's deadline, if it has one.
    pub deadline_in: Option<Duration>,
    /// Whether this delivery may continue with the next stage.
    pub keep_going: bool,
    /// The partial results of the stage.
    pub kept: &'a Kept<'a>,
}

/// What the worker must do after a run.
#[derive(Debug)]
pub enum Decision<C> {
    Commit(Box<Commit<C>>),
    /// Look and run again at once, within this attempt.
    Repeat,
    /// Postgres or RabbitMQ is unavailable: run the stage again after a pause; no attempt is used.
    Infrastructure(StageFault),
    /// Give the job up with the partial results of the stage; it is due at once.
    GiveUp,
}

words! {
    /// How an attempt that did not succeed ended.
    AttemptOutcome {
        /// The stage is retried later.
        Retried = "retried",
        /// The job is parked: a person must look.
        Parked = "parked",
        /// The job waits for a cause.
        Waited = "waited",
    }
}

/// One transaction, fenced by the claim's epoch.
#[derive(Debug)]
pub struct Commit<C> {
    /// The record of the run.
    pub record: Record,
    pub effect: Option<EffectOutcome>,
    /// The state of effects that earlier attempts left open, if this attempt found nothing more to
    /// do.
    pub leftover: Option<EffectState>,
    /// The changes to the product's tables.
    pub changes: Option<C>,
    /// The follow-ups to insert.
    pub children: Vec<Child>,
    /// What becomes of the job.
    pub next: Next,
    /// Counts of what the stage skipped; each kind replaces the stored counts of that kind.
    pub skipped: Skipped,
    /// The partial results of an unfinished stage: see [`super::Kept`].
    pub partial: Option<Box<RawValue>>,
}

/// The record of a stage's run.
#[derive(Debug)]
pub enum Record {
    /// The run succeeded.
    Checkpoint(CheckpointRecord),
    /// The run did not succeed.
    Attempt(AttemptRecord),
}

#[derive(Debug)]
pub struct CheckpointRecord {
    pub stage: &'static str,
    /// The version of the stage's output.
    pub version: i32,
    /// The output; `None` where applying the changes gives it.
    pub output: Option<Box<RawValue>>,
}

/// An unsuccessful attempt to be stored.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    pub stage: String,
    pub outcome: AttemptOutcome,
    /// Why it did not succeed.
    pub failure: Failure,
}

/// A failure as stored and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable code.
    pub code: String,
    /// The chain of causes.
    pub message: String,
    /// What a person can do.
    pub hint: String,
    /// Groups similar failures.
    pub fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectOutcome {
    pub key: String,
    pub state: EffectState,
    /// The provider's name for what was made.
    pub provider_ref: Option<String>,
}

/// What becomes of the job row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The named stage is due.
    Stage {
        stage: String,
        /// Whether this claim continues with it at once; otherwise the job is given up with a
        /// wake-up.
        keep: bool,
    },
    /// No stage is left: the job succeeds, or waits for its follow-ups.
    Finish,
    /// The job waits, unless the cause is already gone.
    Wait {
        on: WaitOn,
        /// The stage due afterwards.
        resume_at: String,
    },
    /// The same stage is due again, later.
    Retry {
        /// The delay from now, by Postgres' clock.
        after: Duration,
        used_attempt: bool,
    },
    /// The job is parked: a person must look.
    Park,
}

/// The number of lost compare-and-sets at which an attempt counts as failed.
const CONFLICTS: u32 = 5;
/// The number of attempts, the first included, while the provider answers with words that are not
/// known here. Some such answers pass by themselves; the others need a person soon.
const UNRECOGNIZED_ATTEMPTS: i32 = 4;

/// Decides what must be committed for the result of a stage. `chance` in 0..1 spreads retries.
pub fn decide<C>(at: &Position<'_>, ended: Ended<C>, chance: f64) -> Decision<C> {
    let fault = match ended {
        Ended::Done(outcome) => return Decision::Commit(Box::new(succeed(at, *outcome))),
        Ended::Fault(fault) => fault,
        Ended::Panicked(message) => {
            let failure = failure(
                &kind(at, "engine.panicked", None),
                &message,
                "A defect of the stage: see the log, then retry with a fixed worker.",
            );
            return Decision::Commit(Box::new(park(at, failure, Certainty::Unknown)));
        }
        Ended::TimedOut(limit) => {
            let message = format!("the stage took longer than {} s", limit.as_secs());
            let failure = failure(
                &kind(at, "engine.timed_out", None),
                &message,
                "The stage is retried. If it persists, check the service it calls.",
            );
            return Decision::Commit(Box::new(retry(
                at,
                failure,
                None,
                Certainty::Unknown,
                chance,
            )));
        }
    };
    let kind = kind(at, fault.code(), fault.destination());
    let failure = failure(&kind, &fault.message(), &fault.hint());
    let certainty = fault.certainty();
    Decision::Commit(Box::new(match fault.class() {
        Class::Infrastructure => return Decision::Infrastructure(fault),
        Class::Conflict if at.conflicts + 1 < CONFLICTS => return Decision::Repeat,
        Class::Conflict => retry(at, failure, None, certainty, chance),
        Class::Transient { retry_after } | Class::RateLimited { retry_after } => {
            retry(at, failure, retry_after, certainty, chance)
        }
        Class::Unrecognized if at.job.attempt.0 < UNRECOGNIZED_ATTEMPTS => {
            retry(at, failure, None, certainty, chance)
        }
        Class::Permanent | Class::Unrecognized => park(at, failure, certainty),
        Class::Wait(on) => wait(at, failure, on, certainty),
        Class::Unfinished => return Decision::GiveUp,
    }))
}

fn succeed<C>(at: &Position<'_>, outcome: ErasedOutcome<C>) -> Commit<C> {
    let ErasedOutcome {
        output,
        children,
        changes,
        then,
        provider_ref,
        skipped,
    } = outcome;
    let provider_ref = provider_ref.map(|name| storable(&name, 255));
    let next = match then {
        Then::Next => at.next.map_or(Next::Finish, |stage| Next::Stage {
            stage: stage.to_owned(),
            keep: at.keep_going,
        }),
        Then::Jump(stage) => Next::Stage {
            stage: stage.to_owned(),
            keep: at.keep_going,
        },
        Then::Wait { on, resume_at } => Next::Wait {
            on,
            resume_at: resume_at.to_owned(),
        },
        Then::Finish => Next::Finish,
    };
    let left = at.stage.effect.is_some() && at.effect.is_none();
    // If the change is not found, the call may still have been made: another writer may have
    // replaced it since.
    let leftover = left.then_some(if provider_ref.is_some() {
        EffectState::Confirmed
    } else {
        EffectState::Unknown
    });
    let effect = at.effect.map(|effect| EffectOutcome {
        key: effect.key.clone(),
        state: EffectState::Confirmed,
        provider_ref,
    });
    let record = Record::Checkpoint(CheckpointRecord {
        stage: at.stage.name,
        version: at.stage.version,
        output,
    });
    Commit {
        record,
        effect,
        leftover,
        changes,
        children,
        next,
        skipped,
        partial: None,
    }
}

fn retry<C>(
    at: &Position<'_>,
    failure: Failure,
    retry_after: Option<Duration>,
    certainty: Certainty,
    chance: f64,
) -> Commit<C> {
    let Some(after) = at.stage.retry.delay(at.job.attempt, retry_after, chance) else {
        return park(at, failure, certainty);
    };
    if at.deadline_in.is_some_and(|left| after >= left) {
        return park(at, deadline_exceeded(at, &failure), certainty);
    }
    unsuccessful(
        at,
        AttemptOutcome::Retried,
        failure,
        certainty,
        Next::Retry {
            after,
            used_attempt: true,
        },
    )
}

fn park<C>(at: &Position<'_>, failure: Failure, certainty: Certainty) -> Commit<C> {
    unsuccessful(at, AttemptOutcome::Parked, failure, certainty, Next::Park)
}

fn wait<C>(at: &Position<'_>, failure: Failure, on: WaitOn, certainty: Certainty) -> Commit<C> {
    let resume_at = at.stage.name.to_owned();
    unsuccessful(
        at,
        AttemptOutcome::Waited,
        failure,
        certainty,
        Next::Wait { on, resume_at },
    )
}

fn unsuccessful<C>(
    at: &Position<'_>,
    outcome: AttemptOutcome,
    failure: Failure,
    certainty: Certainty,
    next: Next,
) -> Commit<C> {
    let state = match certainty {
        Certainty::NotDone => EffectState::Failed,
        Certainty::Unknown => EffectState::Unknown,
    };
    let effect = at.effect.map(|effect| EffectOutcome {
        key: effect.key.clone(),
        state,
        provider_ref: None,
    });
    let record = Record::Attempt(AttemptRecord {
        stage: at.stage.name.to_owned(),
        outcome,
        failure,
    });
    let (skipped, partial) = (Skipped::new(), at.kept.to_stored());
    Commit {
        record,
        effect,
        leftover: None,
        changes: None,
        children: Vec::new(),
        next,
        skipped,
        partial,
    }
}

/// Returns what a failure of this run is called.
fn kind<'a>(at: &Position<'a>, code: &'a str, destination: Option<&'a str>) -> FailureKind<'a> {
    FailureKind {
        pipeline: &at.job.pipeline,
        stage: at.stage.name,
        code,
        destination,
    }
}

fn failure(kind: &FailureKind<'_>, message: &str, hint: &str) -> Failure {
    Failure {
        code: kind.code.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
        fingerprint: fingerprint(kind, message),
    }
}

fn deadline_exceeded(at: &Position<'_>, last: &Failure) -> Failure {
    let message = format!(
        "the next attempt would come after the job's deadline; the last one failed with {}",
        last.code
    );
    failure(
        &kind(at, codes::DEADLINE_EXCEEDED, None),
        &message,
        DEADLINE_HINT,
    )
}
