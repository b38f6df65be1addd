//! Jobs of another version: a job with a schema, pipeline, stage or checkpoint version that this
//! worker does not know waits for a worker that does.

use std::time::Duration;

use serde_json::value::to_raw_value;

use super::Worker;
use super::context::WorkerContext;
use crate::engine::{
    AttemptOutcome, AttemptRecord, Commit, Failure, Next, Pipeline, Product, Record, Skipped,
};
use crate::fault::{FailureKind, WaitOn, chain, fingerprint};
use crate::job::{Job, WaitReason};
use crate::message::{Envelope, Intake, Request, decode_intake, sealed_place};
use crate::store::{Claim, Run, SoFar, Tables};

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Returns the claim's pipeline if this worker knows the pipeline, the stage, the schema and
    /// the versions of the checkpoints; otherwise commits that the job waits for a worker that
    /// does.
    pub(super) async fn known(&self, claim: &Claim) -> Option<&Pipeline<P>> {
        match unseal(&self.context, claim).await {
            Ok(false) => {}
            Ok(true) => return None,
            Err(newer) => {
                self.leave_to_newer(claim, *newer).await;
                return None;
            }
        }
        let Some(pipeline) = self.context.registry.get(&claim.job.pipeline) else {
            self.leave_to_newer(claim, Unknown::pipeline(&claim.job))
                .await;
            return None;
        };
        if let Some(newer) = unknown_stage(pipeline, claim) {
            self.leave_to_newer(claim, newer).await;
            return None;
        }
        Some(pipeline)
    }

    async fn leave_to_newer(&self, claim: &Claim, newer: Unknown) {
        self.leave(claim, newer.into_commit(claim)).await;
    }

    /// Commits that a claimed job waits or is parked before its next stage.
    pub(super) async fn leave(&self, claim: &Claim, commit: Commit<P::Changes>) {
        let run = Run {
            fence: &claim.fence,
            job: &claim.job,
            took: Duration::ZERO,
        };
        debug_assert!(
            matches!(commit.next, Next::Wait { .. } | Next::Park),
            "a job that is left is not run"
        );
        match self.context.writer.commit(run, &commit).await {
            Ok(committed) => {
                self.context
                    .publish(&committed.wake, committed.announcements)
                    .await
            }
            Err(error) => {
                tracing::warn!(
                    error = crate::fault::chain(&error),
                    "a job could neither be made to wait nor parked; it is due again in a second"
                );
                self.context
                    .postpone(&claim.fence, Duration::from_secs(1), SoFar::AsStored)
                    .await;
            }
        }
    }
}

/// A claimed job that this worker cannot run.
struct Unknown {
    wait: Option<WaitOn>,
    failure: Failure,
}

impl Unknown {
    fn newer(job: &Job, key: String, what: &str) -> Self {
        let wait = Some(WaitOn {
            reason: WaitReason::Version,
            key,
            observed: 0,
        });
        Self {
            wait,
            failure: failure(
                job,
                "newer_version",
                what,
                "Start a worker of a version that knows it, or roll back the change that made it.",
            ),
        }
    }

    fn pipeline(job: &Job) -> Self {
        Self::newer(
            job,
            version_key(&job.pipeline),
            &format!("this worker knows no pipeline `{}`", job.pipeline),
        )
    }

    fn unreadable(job: &Job, what: &str) -> Self {
        Self {
            wait: None,
            failure: failure(
                job,
                "unreadable_payload",
                what,
                "Cancel the job and publish it again.",
            ),
        }
    }

    /// Returns the commit that makes the job wait for a worker that knows it, or parks the job if
    /// no worker can run it.
    fn into_commit<C>(self, claim: &Claim) -> Commit<C> {
        let job = &claim.job;
        let (outcome, next) = match self.wait {
            Some(on) => (
                AttemptOutcome::Waited,
                Next::Wait {
                    on,
                    resume_at: job.stage.clone(),
                },
            ),
            None => (AttemptOutcome::Parked, Next::Park),
        };
        unsuccessful(claim, outcome, self.failure, next)
    }
}

/// Returns the commit of a claim whose next stage does not start. The partial results stay.
pub(super) fn unsuccessful<C>(
    claim: &Claim,
    outcome: AttemptOutcome,
    failure: Failure,
    next: Next,
) -> Commit<C> {
    let record = Record::Attempt(AttemptRecord {
        stage: claim.job.stage.clone(),
        outcome,
        failure,
    });
    let (skipped, partial) = (Skipped::new(), claim.partial.clone());
    Commit {
        record,
        effect: None,
        leftover: None,
        changes: None,
        children: Vec::new(),
        next,
        skipped,
        partial,
    }
}

pub(super) fn failure(job: &Job, code: &str, message: &str, hint: &str) -> Failure {
    let kind = FailureKind {
        pipeline: &job.pipeline,
        stage: &job.stage,
        code,
        destination: None,
    };
    Failure {
        code: code.to_owned(),
        message: message.to_owned(),
        hint: hint.to_owned(),
        fingerprint: fingerprint(&kind, message),
    }
}

/// Returns the key that a job of an unknown pipeline waits for. `of` is `pipeline`, or
/// `pipeline/stage@version` for an unknown stage.
#[must_use]
pub fn version_key(of: &str) -> String {
    format!("version:{of}")
}

/// Returns an [`Unknown`] if this worker does not know the stage due, or if a checkpoint is newer
/// than this worker.
fn unknown_stage<P: Product>(pipeline: &Pipeline<P>, claim: &Claim) -> Option<Unknown> {
    let job = &claim.job;
    if pipeline.stage(&job.stage).is_none() {
        let key = version_key(&format!("{}/{}@1", job.pipeline, job.stage));
        return Some(Unknown::newer(
            job,
            key,
            &format!("this worker knows no stage `{}`", job.stage),
        ));
    }
    let newer = claim.outputs.iter().find(|checkpoint| {
        pipeline
            .stage(&checkpoint.stage)
            .is_none_or(|(info, _)| checkpoint.version > info.version)
    })?;
    let key = version_key(&format!(
        "{}/{}@{}",
        job.pipeline, newer.stage, newer.version
    ));
    Some(Unknown::newer(
        job,
        key,
        &format!(
            "the checkpoint of `{}` is of version {}",
            newer.stage, newer.version
        ),
    ))
}

/// Decodes the sealed payload of a job that arrived with a newer schema, which this worker may
/// know. The job is then given up, to begin again like a new job. Returns `false` if there was
/// nothing to decode.
async fn unseal<P: Product, T: Tables<Changes = P::Changes>>(
    context: &WorkerContext<P, T>,
    claim: &Claim,
) -> Result<bool, Box<Unknown>> {
    let Some(sealed) = &claim.sealed_payload else {
        return Ok(false);
    };
    let unreadable = |what: &str| Box::new(Unknown::unreadable(&claim.job, what));
    let row = context
        .until_available(|| context.store().job(claim.job.id))
        .await
        .map_err(|error| unreadable(&chain(&error)))?;
    let Some(row) = row else { return Ok(true) };
    let request = open(context, &claim.job, row.dedupe_key, sealed)?;
    let payload = to_raw_value(&request).map_err(|error| unreadable(&error.to_string()))?;
    let unsealed = context
        .until_available(|| context.store().unseal(&claim.fence, &payload, &request))
        .await;
    unsealed
        .map(|_| true)
        .map_err(|error| unreadable(&chain(&error)))
}

/// Opens and decodes a sealed payload. Source and key may have been properties of the message, so
/// they come from the row. The sender of the bytes was checked when they arrived.
fn open<P: Product, T: Tables<Changes = P::Changes>>(
    context: &WorkerContext<P, T>,
    job: &Job,
    dedupe_key: String,
    sealed: &str,
) -> Result<Request, Box<Unknown>> {
    let unreadable = |what: &str| Box::new(Unknown::unreadable(job, what));
    let row = job.id.to_string();
    let body = context
        .keyring
        .open(sealed_place(&row), sealed)
        .map_err(|error| unreadable(&chain(&error)))?;
    let envelope = Envelope {
        content_type: Some("application/json".to_owned()),
        message_id: Some(dedupe_key),
        app_id: Some(job.source.clone()),
        ..Envelope::default()
    };
    match decode_intake(&body, &envelope, &context.keyring, job.id) {
        Ok(Intake::Request { request, .. }) => Ok(*request),
        Ok(Intake::Newer(newer)) => {
            let key = format!("schema:{}", newer.schema);
            Err(Box::new(Unknown::newer(
                job,
                key,
                &format!("the payload is of schema {}", newer.schema),
            )))
        }
        Err(refusal) => Err(unreadable(&refusal.to_string())),
    }
}
