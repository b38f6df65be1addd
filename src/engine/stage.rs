//! What a stage is: a named step that is safe to repeat and whose outcome is data.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::checkpoint::Outputs;
use super::effect::{Effect, Intent};
use super::kept::Kept;
use super::retry::RetryPolicy;
use super::skipped::{Skipped, bounded};
use crate::fault::{Class, Fault, StageFault, WaitOn};
use crate::job::{EffectClass, Job};

/// What the engine is generic over: the product brings the services its stages use and the changes its commits apply.
pub trait Product: Send + Sync + 'static {
    /// What stages reach the outside with.
    type Services: Send + Sync;
    /// Product data that a commit applies in its own transaction.
    type Changes: Send + Sync + 'static;
}

/// A named step of a pipeline. Its file's head says what it needs, what it changes and why it is safe to repeat.
pub trait Stage: Send + Sync + 'static {
    /// What it is a stage of.
    type Product: Product;

    /// Durable: in Postgres, messages and metrics. Never renamed.
    const NAME: &'static str;
    /// Raised when the output's shape changes; a worker that does not know a stored version leaves the job to one that does.
    const VERSION: i32 = 1;
    /// The stages whose outputs it reads; each must come earlier in the pipeline.
    const NEEDS: &'static [&'static str] = &[];
    /// How often it is tried.
    const RETRY: RetryPolicy = RetryPolicy::DEFAULT;
    /// Longest time for one attempt.
    const TIMEOUT: Duration = Duration::from_secs(30);
    /// The worst class of effect it can have, if it has any.
    const EFFECT: Option<EffectClass> = None;
    /// Stored as its checkpoint.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Looks before it leaps: a stage with an effect says here what it is about to do, and the engine stores that before
    /// [`Stage::run`] is called. Changes nothing outside.
    fn prepare(&self, _cx: &Context<'_, Self::Product>) -> impl Future<Output = PrepareResult<Self>> + Send {
        std::future::ready(Ok(Prepared::NoEffect(NoEffect)))
    }

    /// Does the work, outside any transaction and without a pooled connection.
    fn run(&self, cx: &Context<'_, Self::Product>) -> impl Future<Output = StageResult<Self>> + Send;
}

/// The changes that a stage's commit may apply.
pub(super) type ChangesOf<S> = <<S as Stage>::Product as Product>::Changes;
/// What [`Stage::prepare`] returns.
pub type PrepareResult<S> = Result<Prepared<<S as Stage>::Output, ChangesOf<S>>, StageFault>;
/// What [`Stage::run`] returns.
pub type StageResult<S> = Result<StageOutcome<<S as Stage>::Output, ChangesOf<S>>, StageFault>;

/// Says that a stage changes nothing outside.
#[derive(Debug, Clone, Copy)]
pub struct NoEffect;

/// What came of looking.
#[derive(Debug)]
pub enum Prepared<O, C> {
    /// Nothing outside will change: run it.
    NoEffect(NoEffect),
    /// Store this, then run it.
    Effect(Box<Intent>),
    /// There is nothing to do: this is the outcome.
    Done(StageOutcome<O, C>),
}

/// What a finished stage hands to the commit.
#[derive(Debug)]
pub struct StageOutcome<O, C> {
    /// The checkpoint; `None` where applying `changes` gives it.
    pub output: Option<O>,
    /// Follow-ups, inserted by the commit.
    pub children: Vec<Child>,
    /// Product data, applied in the commit's transaction.
    pub changes: Option<C>,
    /// Where the job goes from here.
    pub then: Then,
    /// The other side's name for what was made (a message id, a revision).
    pub provider_ref: Option<String>,
    /// What was left aside.
    pub skipped: Skipped,
}

impl<O, C> StageOutcome<O, C> {
    /// An output, nothing else, and on to the next stage.
    pub const fn of(output: O) -> Self {
        Self {
            output: Some(output),
            children: Vec::new(),
            changes: None,
            then: Then::Next,
            provider_ref: None,
            skipped: Skipped::new(),
        }
    }

    /// Changes whose application in the commit gives the output.
    pub const fn apply(changes: C) -> Self {
        Self {
            output: None,
            children: Vec::new(),
            changes: Some(changes),
            then: Then::Next,
            provider_ref: None,
            skipped: Skipped::new(),
        }
    }

    /// With follow-ups.
    #[must_use]
    pub fn with_children(mut self, children: Vec<Child>) -> Self {
        self.children = children;
        self
    }

    /// With changes beside the output.
    #[must_use]
    pub fn with_changes(mut self, changes: C) -> Self {
        self.changes = Some(changes);
        self
    }

    /// With the other side's name for what was made.
    #[must_use]
    pub fn with_provider_ref(mut self, provider_ref: Option<String>) -> Self {
        self.provider_ref = provider_ref;
        self
    }

    /// With what was left aside, in counts by reason; where nothing was, that says nothing. Of one kind at most 32 reasons of at
    /// most 64 bytes are kept; the others are counted as `other`.
    #[must_use]
    pub fn with_skipped(mut self, kind: &'static str, counts: BTreeMap<String, u32>) -> Self {
        let counts = bounded(counts);
        if !counts.is_empty() {
            self.skipped.insert(kind, counts);
        }
        self
    }

    /// Going elsewhere than to the next stage.
    #[must_use]
    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

/// Where a job goes after a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// To the next stage of the list, or to the end.
    Next,
    /// To the named stage.
    Jump(&'static str),
    /// Nowhere until the cause is gone; then to the named stage.
    Wait {
        /// The cause.
        on: WaitOn,
        /// The stage due afterwards.
        resume_at: &'static str,
    },
    /// To the end: the rest of the list is not needed.
    Finish,
}

/// A follow-up to be made.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its pipeline's name.
    pub pipeline: &'static str,
    /// Unique among the parent's children of one generation; its id derives from it.
    pub target: String,
    /// What its first stage reads.
    pub payload: Value,
}

/// What a stage sees.
pub struct Context<'a, P: Product> {
    /// The job.
    pub job: &'a Job,
    /// The way to the outside.
    pub services: &'a P::Services,
    /// The stored intent, in `run` of a stage that has one.
    pub effect: Option<&'a Effect>,
    pub(super) outputs: &'a Outputs,
    pub(super) needs: &'static [&'static str],
    pub(super) payload: &'a OnceLock<Arc<dyn Any + Send + Sync>>,
    kept: &'a Kept<'a>,
}

impl<'a, P: Product> Context<'a, P> {
    /// For a stage of a claimed job. `payload` keeps the decoded payload between the stages of one run, `kept` what this stage
    /// has fetched so far.
    #[must_use]
    pub const fn new(
        job: &'a Job,
        services: &'a P::Services,
        outputs: &'a Outputs,
        needs: &'static [&'static str],
        payload: &'a OnceLock<Arc<dyn Any + Send + Sync>>,
        kept: &'a Kept<'a>,
    ) -> Self {
        Self { job, services, effect: None, outputs, needs, payload, kept }
    }

    /// With the stored intent.
    #[must_use]
    pub const fn with_effect(mut self, effect: Option<&'a Effect>) -> Self {
        self.effect = effect;
        self
    }

    /// What this stage has so far, in this run and in earlier ones that did not finish it.
    #[must_use]
    pub const fn pieces(&self) -> &'a Kept<'a> {
        self.kept
    }

    /// The output of an earlier stage, which must be among this stage's needs.
    ///
    /// # Errors
    /// [`EngineFault`] where it is not, has no checkpoint or does not have the expected shape.
    pub fn output<S: Stage<Product = P>>(&self) -> Result<S::Output, EngineFault> {
        self.maybe_output::<S>()?.ok_or(EngineFault::Missing(S::NAME))
    }

    /// As [`Context::output`], for a stage that a jump may have left out: `None` where it has no checkpoint.
    ///
    /// # Errors
    /// [`EngineFault`] where the stage is not among this stage's needs or its checkpoint does not have the expected shape.
    pub fn maybe_output<S: Stage<Product = P>>(&self) -> Result<Option<S::Output>, EngineFault> {
        if !self.needs.contains(&S::NAME) {
            return Err(EngineFault::Undeclared(S::NAME));
        }
        let Some(checkpoint) = self.outputs.get(S::NAME) else { return Ok(None) };
        serde_json::from_str(checkpoint.output.get()).map(Some).map_err(|error| EngineFault::Shape(S::NAME, error))
    }

    /// The job's payload, decoded once per run.
    ///
    /// # Errors
    /// [`EngineFault::Payload`] where it does not have the expected shape.
    pub fn payload<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, EngineFault> {
        if let Some(known) = self.payload.get().and_then(|known| Arc::clone(known).downcast::<T>().ok()) {
            return Ok(known);
        }
        let decoded = Arc::new(serde_json::from_str::<T>(self.job.payload.get()).map_err(EngineFault::Payload)?);
        let erased: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(&decoded);
        self.payload.get_or_init(|| erased);
        Ok(decoded)
    }

    /// The stored intent of this run.
    ///
    /// # Errors
    /// [`EngineFault::NoIntent`] where the stage's `prepare` stored none.
    pub fn stored_effect(&self) -> Result<&'a Effect, EngineFault> {
        self.effect.ok_or(EngineFault::NoIntent)
    }
}

/// A job and the code that runs it do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum EngineFault {
    /// A stage reads what it did not declare.
    #[error("the output of `{0}` is read but not among the stage's needs")]
    Undeclared(&'static str),
    /// No checkpoint of a stage that must have run.
    #[error("`{0}` has no checkpoint")]
    Missing(&'static str),
    /// A checkpoint that does not decode.
    #[error("the checkpoint of `{0}` does not have the expected shape")]
    Shape(&'static str, #[source] serde_json::Error),
    /// A payload that does not decode.
    #[error("the job's payload does not have the expected shape")]
    Payload(#[source] serde_json::Error),
    /// `run` wants an intent that `prepare` did not store.
    #[error("the stage has no stored intent")]
    NoIntent,
    /// The run ends between two of its calls, as the worker drains or the delivery has taken its time.
    #[error("the stage is not finished: it goes on from here in a later run")]
    Unfinished,
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for EngineFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Undeclared(_) => "engine.undeclared_need",
            Self::Missing(_) => "engine.missing_checkpoint",
            Self::Shape(..) => "engine.checkpoint_shape",
            Self::Payload(_) => "engine.payload_shape",
            Self::NoIntent => "engine.no_intent",
            Self::Unfinished => "engine.unfinished",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Undeclared(_) | Self::Missing(_) | Self::Shape(..) | Self::Payload(_) | Self::NoIntent => Class::Permanent,
            Self::Unfinished => Class::Unfinished,
        }
    }

    fn hint(&self) -> String {
        "This is a defect of the worker, or a row edited by hand. Re-run the job from the stage before, with a worker that knows it.".to_owned()
    }
}
