//! Stages: named units of work that are safe to repeat and whose outcome is data.

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

/// The product that the engine is generic over: the services of its stages, and the changes that
/// its commits apply.
pub trait Product: Send + Sync + 'static {
    /// The services that stages call.
    type Services: Send + Sync;
    /// The changes to the product's tables that a commit applies in its own transaction.
    type Changes: Send + Sync + 'static;
}

/// A stage of a pipeline. The head of its file states what it needs, what it changes and why it is
/// safe to repeat.
pub trait Stage: Send + Sync + 'static {
    /// The product that the stage belongs to.
    type Product: Product;

    /// The durable name, in Postgres, messages and metrics. It is never renamed.
    const NAME: &'static str;
    /// The version of the output, raised when its shape changes. A worker that does not know a
    /// stored version leaves the job to one that does.
    const VERSION: i32 = 1;
    /// The stages whose outputs it reads; each must come earlier in the pipeline.
    const NEEDS: &'static [&'static str] = &[];
    /// How often and how far apart it is attempted.
    const RETRY: RetryPolicy = RetryPolicy::DEFAULT;
    /// The longest time for its look, and for its run.
    const TIMEOUT: Duration = Duration::from_secs(30);
    /// The class of its effects that guarantees least, if it has any.
    const EFFECT: Option<EffectClass> = None;
    /// The output, stored as its checkpoint.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Looks: reads what the run needs and, if the stage is about to have an effect, returns the
    /// intent, which the engine stores before it calls [`Stage::run`]. Changes nothing outside.
    fn prepare(
        &self,
        _cx: &Context<'_, Self::Product>,
    ) -> impl Future<Output = PrepareResult<Self>> + Send {
        std::future::ready(Ok(Prepared::NoEffect(NoEffect)))
    }

    /// Does the work, outside any transaction and without a pooled connection.
    fn run(
        &self,
        cx: &Context<'_, Self::Product>,
    ) -> impl Future<Output = StageResult<Self>> + Send;
}

/// The changes that a stage's commit may apply.
pub(super) type ChangesOf<S> = <<S as Stage>::Product as Product>::Changes;
/// What [`Stage::prepare`] returns.
pub type PrepareResult<S> = Result<Prepared<<S as Stage>::Output, ChangesOf<S>>, StageFault>;
/// What [`Stage::run`] returns.
pub type StageResult<S> = Result<StageOutcome<<S as Stage>::Output, ChangesOf<S>>, StageFault>;

/// The marker of a run that changes nothing outside.
#[derive(Debug, Clone, Copy)]
pub struct NoEffect;

/// The result of a stage's look.
#[derive(Debug)]
pub enum Prepared<O, C> {
    /// Nothing outside will change: run the stage.
    NoEffect(NoEffect),
    /// Store this intent, then run the stage.
    Effect(Box<Intent>),
    /// There is nothing to do: this is the outcome.
    Done(StageOutcome<O, C>),
}

/// The outcome of a finished stage, which its commit stores.
#[derive(Debug)]
pub struct StageOutcome<O, C> {
    /// The output; `None` where applying `changes` gives it.
    pub output: Option<O>,
    /// Follow-ups, inserted by the commit.
    pub children: Vec<Child>,
    /// Changes to the product's tables, applied in the commit's transaction.
    pub changes: Option<C>,
    /// Where the job continues.
    pub then: Then,
    /// The provider's name for what was made (a message id, a revision).
    pub provider_ref: Option<String>,
    /// Counts of what the stage skipped.
    pub skipped: Skipped,
}

impl<O, C> StageOutcome<O, C> {
    /// Creates an outcome with an output alone, which leads to the next stage.
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

    /// Creates an outcome with changes, whose application in the commit gives the output.
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

    /// Sets the follow-ups.
    #[must_use]
    pub fn with_children(mut self, children: Vec<Child>) -> Self {
        self.children = children;
        self
    }

    /// Sets changes that are applied in addition to the output.
    #[must_use]
    pub fn with_changes(mut self, changes: C) -> Self {
        self.changes = Some(changes);
        self
    }

    /// Sets the provider's name for what was made.
    #[must_use]
    pub fn with_provider_ref(mut self, provider_ref: Option<String>) -> Self {
        self.provider_ref = provider_ref;
        self
    }

    /// Adds the counts by reason of what was skipped; empty counts add nothing. At most 32 reasons
    /// of one kind are kept, of at most 64 bytes; the others are counted as `other`.
    #[must_use]
    pub fn with_skipped(mut self, kind: &'static str, counts: BTreeMap<String, u32>) -> Self {
        let counts = bounded(counts);
        if !counts.is_empty() {
            self.skipped.insert(kind, counts);
        }
        self
    }

    /// Sets where the job continues, if not at the next stage.
    #[must_use]
    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

/// Where a job continues after a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// At the next stage of the list; after the last stage the job finishes.
    Next,
    /// At the named stage.
    Jump(&'static str),
    /// The job waits until the cause is gone, and continues at the named stage.
    Wait {
        /// The cause.
        on: WaitOn,
        /// The stage due afterwards.
        resume_at: &'static str,
    },
    /// The job finishes: the rest of the list is not needed.
    Finish,
}

/// A follow-up to insert.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its pipeline's name.
    pub pipeline: &'static str,
    /// Unique among the parent's children of one generation; its id derives from it.
    pub target: String,
    /// The payload that its first stage reads.
    pub payload: Value,
}

/// Everything that a stage can use.
pub struct Context<'a, P: Product> {
    pub job: &'a Job,
    pub services: &'a P::Services,
    /// The stored intent, in `run` of a stage that has one.
    pub effect: Option<&'a Effect>,
    pub(super) outputs: &'a Outputs,
    pub(super) needs: &'static [&'static str],
    pub(super) payload: &'a OnceLock<Arc<dyn Any + Send + Sync>>,
    kept: &'a Kept<'a>,
}

impl<'a, P: Product> Context<'a, P> {
    /// Creates the context for a stage of a claimed job. `payload` keeps the decoded payload
    /// between the stages of one run, `kept` the partial results of this stage.
    #[must_use]
    pub const fn new(
        job: &'a Job,
        services: &'a P::Services,
        outputs: &'a Outputs,
        needs: &'static [&'static str],
        payload: &'a OnceLock<Arc<dyn Any + Send + Sync>>,
        kept: &'a Kept<'a>,
    ) -> Self {
        Self {
            job,
            services,
            effect: None,
            outputs,
            needs,
            payload,
            kept,
        }
    }

    /// Sets the stored intent.
    #[must_use]
    pub const fn with_effect(mut self, effect: Option<&'a Effect>) -> Self {
        self.effect = effect;
        self
    }

    /// Returns the partial results of this stage, from this run and from earlier ones that did not
    /// finish it.
    #[must_use]
    pub const fn pieces(&self) -> &'a Kept<'a> {
        self.kept
    }

    /// Returns the output of an earlier stage, which must be among this stage's needs.
    ///
    /// # Errors
    /// [`EngineFault`] if it is not among them, has no checkpoint, or its checkpoint does not have
    /// the expected shape.
    pub fn output<S: Stage<Product = P>>(&self) -> Result<S::Output, EngineFault> {
        self.maybe_output::<S>()?
            .ok_or(EngineFault::Missing(S::NAME))
    }

    /// Returns the output of an earlier stage that a jump may have skipped: `None` if it has no
    /// checkpoint.
    ///
    /// # Errors
    /// [`EngineFault`] if the stage is not among this stage's needs, or its checkpoint does not
    /// have the expected shape.
    pub fn maybe_output<S: Stage<Product = P>>(&self) -> Result<Option<S::Output>, EngineFault> {
        if !self.needs.contains(&S::NAME) {
            return Err(EngineFault::Undeclared(S::NAME));
        }
        let Some(checkpoint) = self.outputs.get(S::NAME) else {
            return Ok(None);
        };
        serde_json::from_str(checkpoint.output.get())
            .map(Some)
            .map_err(|error| EngineFault::Shape(S::NAME, error))
    }

    /// Returns the job's payload, decoded once per run.
    ///
    /// # Errors
    /// [`EngineFault::Payload`] if it does not have the expected shape.
    pub fn payload<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
    ) -> Result<Arc<T>, EngineFault> {
        if let Some(known) = self
            .payload
            .get()
            .and_then(|known| Arc::clone(known).downcast::<T>().ok())
        {
            return Ok(known);
        }
        let decoded = Arc::new(
            serde_json::from_str::<T>(self.job.payload.get()).map_err(EngineFault::Payload)?,
        );
        let erased: Arc<dyn Any + Send + Sync> = Arc::<T>::clone(&decoded);
        self.payload.get_or_init(|| erased);
        Ok(decoded)
    }

    /// Returns the stored intent of this run.
    ///
    /// # Errors
    /// [`EngineFault::NoIntent`] if the stage's `prepare` returned none.
    pub fn stored_effect(&self) -> Result<&'a Effect, EngineFault> {
        self.effect.ok_or(EngineFault::NoIntent)
    }
}

/// A mismatch between a job and the code that runs it, or an unfinished stage.
#[derive(Debug, thiserror::Error)]
pub enum EngineFault {
    /// A stage reads an output that it does not declare as a need.
    #[error("the output of `{0}` is read but not among the stage's needs")]
    Undeclared(&'static str),
    /// No checkpoint of a stage that must have run.
    #[error("`{0}` has no checkpoint")]
    Missing(&'static str),
    #[error("the checkpoint of `{0}` does not have the expected shape")]
    Shape(&'static str, #[source] serde_json::Error),
    #[error("the job's payload does not have the expected shape")]
    Payload(#[source] serde_json::Error),
    /// `run` needs an intent, and `prepare` returned none.
    #[error("the stage has no stored intent")]
    NoIntent,
    /// The run ends between two of its calls, because the worker drains or the delivery has
    /// reached its time limit.
    #[error("the stage is not finished; a later run continues from here")]
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
            Self::Undeclared(_)
            | Self::Missing(_)
            | Self::Shape(..)
            | Self::Payload(_)
            | Self::NoIntent => Class::Permanent,
            Self::Unfinished => Class::Unfinished,
        }
    }

    fn hint(&self) -> String {
        "A defect of the worker, or a row edited by hand. Start a worker that is fixed or knows the version, then retry the job."
            .to_owned()
    }
}
