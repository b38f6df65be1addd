//! Controls of operators, tested before each stage: a job that a hold or the pause stops waits, one
//! that a kill switch stops is parked or cancelled. The test reads memory; only a job that is
//! stopped costs a query.

use std::time::Instant;

use time::format_description::well_known::Rfc3339;

use super::Worker;
use super::version_skew::{failure, unsuccessful};
use crate::engine::{AttemptOutcome, Commit, Failure, Next, Pipeline, Product};
use crate::fault::{WaitOn, chain, codes};
use crate::job::{JobId, WaitReason};
use crate::store::in_force::{KillSwitch, Stop, Verdict};
use crate::store::{Actor, Claim, KillAction, Role, Subject, Tables, Target};
use crate::telemetry::names;

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Returns whether a control stops the claim's next stage. The job then waits, or is parked or
    /// cancelled, and the run is over. A job whose deadline has passed is left to the stage's run.
    pub(super) async fn is_stopped(&self, claim: &Claim, pipeline: &Pipeline<P>) -> bool {
        let controls = &self.context.controls;
        let subject = || Subject::of(&claim.job, pipeline.lane.name);
        let known = controls.known();
        if claim.is_overdue() || known.verdict(&subject(), Instant::now()).is_none() {
            return false;
        }
        // The control may have ended since it was read.
        let in_force = match controls.fresh().await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "the controls cannot be read; the worker applies the known ones"
                );
                known
            }
        };
        let Some(verdict) = in_force.verdict(&subject(), Instant::now()) else {
            return false;
        };
        match verdict {
            Verdict::Wait(stop) => self.leave(claim, wait(claim, stop)).await,
            Verdict::Kill(switch) => self.kill(claim, switch).await,
        }
        true
    }

    async fn kill(&self, claim: &Claim, switch: &KillSwitch) {
        match switch.action() {
            KillAction::Park => self.leave(claim, park(claim, switch)).await,
            KillAction::Cancel => self.cancel_killed(claim.job.id, switch).await,
        }
        metrics::counter!(names::KILLED, "action" => switch.action().word()).increment(1);
        tracing::warn!(
            control.id = switch.id,
            action = switch.action().word(),
            "a kill switch has stopped the job before its stage"
        );
    }

    /// Cancels a job with the worker's own role. The action takes the job from its owner, which is
    /// this replica, and writes an audit row.
    async fn cancel_killed(&self, job: JobId, switch: &KillSwitch) {
        let actor = Actor {
            who: format!("kill switch {} of {}", switch.id, switch.who),
            role: Role::Worker,
            reason: Some(switch.reason.clone()),
            request: None,
        };
        let (store, target) = (self.context.store(), Target::Id(job));
        let cancelled = self
            .context
            .until_available(|| store.cancel(&target, &actor))
            .await;
        if let Err(error) = cancelled {
            tracing::error!(
                error = chain(&error),
                "a job that a kill switch stops could not be cancelled; another claim tries again"
            );
        }
    }
}

fn wait<C>(claim: &Claim, stop: &Stop) -> Commit<C> {
    let Stop {
        scope,
        who,
        reason,
        expires_at,
        ..
    } = stop;
    let until = shown(*expires_at);
    let (message, hint) = if stop.is_pause {
        (
            format!("{who} has paused all jobs until {until}: {reason}"),
            "The job continues when the pause ends; `dispatch resume` ends it now.".to_owned(),
        )
    } else {
        (
            format!("{who} holds {scope} until {until}: {reason}"),
            format!(
                "The job continues when the hold ends; `dispatch holds release '{scope}'` ends the hold now."
            ),
        )
    };
    let next = Next::Wait {
        on: WaitOn {
            reason: WaitReason::Hold,
            key: format!("hold:{scope}"),
            observed: 0,
        },
        resume_at: claim.job.stage.clone(),
    };
    unsuccessful(
        claim,
        AttemptOutcome::Waited,
        failed(claim, codes::HELD, &message, &hint),
        next,
    )
}

fn park<C>(claim: &Claim, switch: &KillSwitch) -> Commit<C> {
    let message = format!(
        "kill switch {} of {}, in force until {}: {}",
        switch.id,
        switch.who,
        shown(switch.expires_at),
        switch.reason
    );
    let hint = format!(
        "Retry the job after the kill switch has ended; `dispatch killswitch end {}` ends it now.",
        switch.id
    );
    unsuccessful(
        claim,
        AttemptOutcome::Parked,
        failed(claim, codes::KILL_SWITCH, &message, &hint),
        Next::Park,
    )
}

fn failed(claim: &Claim, code: &str, message: &str, hint: &str) -> Failure {
    failure(
        &claim.job,
        code,
        &crate::fault::storable(message, crate::fault::MESSAGE_BYTES),
        hint,
    )
}

/// Formats a time as in the database's log, to the second, in UTC.
fn shown(at: time::OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    at.replace_nanosecond(0)
        .unwrap_or(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}
