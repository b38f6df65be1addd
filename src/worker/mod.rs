//! The path of a job, from a delivery to its ack:
//!
//! ```text
//! delivery ─ decode ─ claim
//!    └─ for each stage due: look ─ [store intent] ─ run ─ decide ─ commit ─ publish what the commit made due
//! ─ ack
//! ```
//!
//! **Invariant:** no transaction and no pooled connection is open while a stage runs.
//! **Invariant:** a delivery is acked only after everything it led to is stored; the waker finds
//! what is stored.

mod admission;
mod announcer;
mod claiming;
mod commit_recovery;
mod consumer_liveness;
mod context;
mod controls;
mod heartbeat;
mod intake_throttle;
mod lane;
mod lease;
mod quotas;
mod refusing;
mod report;
mod room;
mod spans;
mod stage_run;
mod stamps;
mod version_skew;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub use admission::Admission;
pub use announcer::{Announcer, Announcing, DueAnnouncements, EventLinks, announcer};
pub use consumer_liveness::{LaneWatch, check_lanes};
pub use context::{Running, WorkerContext};
pub use heartbeat::{beat, begin};
pub use intake_throttle::IntakeThrottle;
pub use lane::{LaneLimiter, LaneRun, prefetch};
pub use lease::Lease;
pub use quotas::{QuotaLimits, Quotas};
pub use stamps::Stamps;
pub use version_skew::version_key;

use crate::broker::Delivery;
use crate::crash_point::reach;
use crate::engine::{Decision, Kept, Partial, Pipeline, Position, Product, StageInfo, decide};
use crate::job::{JobId, JobState};
use crate::store::{Announcement, Claim, Committed, Run, SoFar, Tables};
use crate::telemetry::names;
use crate::trace;
use claiming::{Holding, Taken};
use stage_run::{Due, Step};

/// One incarnation of a worker process.
pub struct Worker<P: Product, T: Tables<Changes = P::Changes>> {
    context: WorkerContext<P, T>,
    lease: Arc<Lease>,
    /// Cancelled when the worker drains: it finishes the stages in hand and claims nothing new.
    drain: CancellationToken,
    throttle: Arc<IntakeThrottle>,
    quotas: Arc<Quotas>,
}

/// The longest time that one delivery occupies the worker; then the worker gives the job up, with
/// a wake-up.
const LONGEST_DELIVERY: Duration = Duration::from_secs(60);

/// How a run continues after a stage.
enum After {
    /// The next stage is due, and this claim goes on with it.
    GoOn,
    /// The job is finished, waits, is given up, or is fenced.
    Stop,
    /// The state of the row is not known: it must be read again.
    ReadAgain,
}

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Creates a worker from its parts, under `lease`.
    #[must_use]
    pub const fn new(
        context: WorkerContext<P, T>,
        lease: Arc<Lease>,
        drain: CancellationToken,
        throttle: Arc<IntakeThrottle>,
        quotas: Arc<Quotas>,
    ) -> Self {
        Self {
            context,
            lease,
            drain,
            throttle,
            quotas,
        }
    }

    /// Handles a delivery up to its ack. If the lease is lost meanwhile, the delivery returns to
    /// its queue.
    pub(crate) async fn handle(&self, mut delivery: Delivery, limiter: &Arc<LaneLimiter>) {
        let lost = self.lease.lost();
        tokio::select! {
            biased;
            () = lost.cancelled() => delivery.abandon(),
            taken = self.take(&delivery, limiter) => match taken {
                Taken::Nothing => delivery.ack(),
                Taken::Back => delivery.abandon(),
                Taken::Ours(claim, holding, announcements) => {
                    delivery.forget_body();
                    tokio::select! {
                        biased;
                        () = lost.cancelled() => delivery.abandon(),
                        () = self.run_traced(claim, holding, announcements) => delivery.ack(),
                    }
                }
            },
        }
    }

    /// Claims and runs the job of a dead owner, as its wake-up would, which arrives as well. If
    /// the lease is lost meanwhile, the replica that takes over this one's jobs does the same.
    pub(crate) async fn take_over(&self, job: JobId, limiter: &Arc<LaneLimiter>) {
        let lost = self.lease.lost();
        tokio::select! {
            biased;
            () = lost.cancelled() => {}
            () = async {
                if let Taken::Ours(claim, holding, announcements) = self.take_freed(job, limiter).await {
                    self.run_traced(claim, holding, announcements).await;
                }
            } => {}
        }
    }

    async fn run_traced(
        &self,
        claim: Box<Claim>,
        mut holding: Holding,
        announcements: Vec<Announcement>,
    ) {
        let spans = &self.context.spans;
        let trace = spans.received(
            claim.job.traceparent.as_deref(),
            claim.tracestate.as_deref(),
        );
        let span = tracing::info_span!("job", job.id = %claim.job.id, job.pipeline = claim.job.pipeline,
            job.organization = claim.job.organization, trace.id = trace.id());
        // The events of the claim are published before those of its stages.
        self.context.announcer.announce(announcements);
        let new = spans.new_span(&trace, || spans::of_claim(&claim));
        let taken_away = holding.in_hand.taken_away();
        let run = async {
            tokio::select! {
                () = self.run(*claim, &mut holding) => {}
                () = taken_away.cancelled() => {
                    tracing::info!("the job is due with a newer epoch, so this run ends and another one continues");
                }
            }
        };
        spans.around(trace, new, run.instrument(span)).await;
    }

    /// Runs a claimed job stage by stage until it is finished, waits, is given up or is fenced.
    async fn run(&self, mut claim: Claim, holding: &mut Holding) {
        let started = Instant::now();
        loop {
            holding.in_hand.runs(claim.job.epoch);
            let Some(pipeline) = self.known(&claim).await else {
                return;
            };
            match self.run_claim(&mut claim, holding, pipeline, started).await {
                After::ReadAgain => {}
                After::GoOn | After::Stop => return,
            }
            let replica = self.lease.replica();
            match self
                .context
                .until_available(|| self.context.store().adopt(replica, claim.job.id))
                .await
            {
                Ok(Some(again)) => claim = again,
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(
                        error = crate::fault::chain(&error),
                        "the job's row cannot be read; the run ends"
                    );
                    return;
                }
            }
        }
    }

    async fn run_claim(
        &self,
        claim: &mut Claim,
        holding: &mut Holding,
        pipeline: &Pipeline<P>,
        started: Instant,
    ) -> After {
        let payload = OnceLock::new();
        let should_end = || self.drain.is_cancelled() || started.elapsed() >= LONGEST_DELIVERY;
        loop {
            let Some((info, stage)) = pipeline.stage(&claim.job.stage) else {
                return After::Stop;
            };
            if self.is_stopped(claim, pipeline).await {
                return After::Stop;
            }
            let (stored, read_again) =
                (claim.partial.take(), std::mem::take(&mut claim.read_again));
            let partial = Partial {
                json: stored.as_deref(),
                read_again,
            };
            let kept = Kept::new(info, claim.job.generation, partial, &should_end);
            let due = Due {
                info,
                stage,
                next: pipeline.after(info.name),
                payload: &payload,
                kept: &kept,
            };
            let run = self.run_stage(claim, holding, &due, started);
            let committed = match trace::in_span(|| spans::of_stage(claim, info), run).await {
                Ok(committed) => committed,
                Err(after) => return after,
            };
            match self.advance(claim, info, committed) {
                After::GoOn => {}
                other => return other,
            }
        }
    }

    /// Runs the stage due until a commit records its outcome, or the job is given up.
    async fn run_stage(
        &self,
        claim: &Claim,
        holding: &mut Holding,
        due: &Due<'_, P>,
        started: Instant,
    ) -> Result<Committed, After> {
        let info = due.info;
        let mut conflicts = 0;
        loop {
            reach(info.name, "after_claim");
            let began = Instant::now();
            let step = if claim.is_overdue() {
                Step::overdue(None)
            } else {
                self.attempt(claim, due).await
            };
            reach(info.name, "after_call");
            let (ended, effect) = match step {
                Step::Ended(ended, effect) => (ended, effect),
                Step::NotYet(delay) => return Err(self.give_up(claim, due, delay).await),
                Step::Fenced => return Err(fenced(info)),
            };
            let keep_going = !self.drain.is_cancelled() && started.elapsed() < LONGEST_DELIVERY;
            let position = Position {
                job: &claim.job,
                stage: info,
                next: due.next,
                conflicts,
                effect: effect.as_ref(),
                deadline_in: claim
                    .deadline
                    .map(|deadline| deadline.saturating_duration_since(Instant::now())),
                keep_going,
                kept: due.kept,
            };
            let commit = match decide(&position, ended, rand::random()) {
                Decision::Commit(commit) => *commit,
                Decision::Repeat => {
                    conflicts += 1;
                    // The compare-and-set was lost: everything read before it must be read again.
                    due.kept.clear();
                    self.refused(claim, effect.as_ref()).await;
                    continue;
                }
                Decision::Infrastructure(fault) => {
                    report::unavailable(&fault);
                    self.context.pause().await;
                    continue;
                }
                Decision::GiveUp => return Err(self.give_up(claim, due, Duration::ZERO).await),
            };
            let run = Run {
                fence: &claim.fence,
                job: &claim.job,
                took: began.elapsed(),
            };
            let mut committed = self.commit(run, &position, commit).await?;
            reach(info.name, "after_commit");
            holding.cleared();
            self.context
                .publish(
                    &committed.wake,
                    std::mem::take(&mut committed.announcements),
                )
                .await;
            reach(info.name, "after_publish");
            return Ok(committed);
        }
    }

    /// Gives the job up without a record of the run, and stores the partial results of its stage.
    async fn give_up(&self, claim: &Claim, due: &Due<'_, P>, delay: Duration) -> After {
        self.context
            .postpone(
                &claim.fence,
                delay,
                SoFar::Only(due.kept.to_stored().as_deref()),
            )
            .await;
        After::Stop
    }

    fn advance(&self, claim: &mut Claim, info: &StageInfo, committed: Committed) -> After {
        trace::note("outcome", committed.state.word());
        if committed.state != JobState::Running {
            return After::Stop;
        }
        if let Some(output) = committed.output {
            let checkpoint = crate::engine::Checkpoint {
                stage: info.name.to_owned(),
                version: info.version,
                output,
            };
            claim.outputs.push(checkpoint);
        }
        claim.job.stage = committed.stage;
        claim.job.attempt = crate::job::Attempt(1);
        After::GoOn
    }
}

fn fenced(stage: &StageInfo) -> After {
    metrics::counter!(names::FENCED).increment(1);
    tracing::info!(
        stage = stage.name,
        "the job was fenced: this replica no longer owns it and drops it"
    );
    After::Stop
}
