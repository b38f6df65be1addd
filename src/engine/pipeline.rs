//! An ordered list of stages, checked when it is built. Type erasure is private to this file.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::effect::Intent;
use super::retry::RetryPolicy;
use super::skipped::Skipped;
use super::stage::{Child, Context, EngineFault, Prepared, Product, Stage, StageOutcome, Then};
use crate::fault::StageFault;
use crate::job::EffectClass;

/// A queue with a concurrency limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The name in metrics, settings and routing keys.
    pub name: &'static str,
    /// The RabbitMQ queue.
    pub queue: &'static str,
    /// The routing key of the lane's wake-ups on the exchange `dispatch.wake`.
    pub wake_key: &'static str,
}

/// The constants of a stage.
#[derive(Debug, Clone, Copy)]
pub struct StageInfo {
    /// See [`Stage::NAME`].
    pub name: &'static str,
    /// See [`Stage::VERSION`].
    pub version: i32,
    /// See [`Stage::NEEDS`].
    pub needs: &'static [&'static str],
    /// See [`Stage::RETRY`].
    pub retry: RetryPolicy,
    /// See [`Stage::TIMEOUT`].
    pub timeout: Duration,
    /// See [`Stage::EFFECT`].
    pub effect: Option<EffectClass>,
    /// Whether the stage is reached by a jump only.
    pub off_path: bool,
}

/// A stage's outcome with its output as JSON.
#[derive(Debug)]
pub struct ErasedOutcome<C> {
    /// The output; `None` where applying the changes gives it.
    pub output: Option<Box<RawValue>>,
    /// The follow-ups to insert.
    pub children: Vec<Child>,
    /// The changes to the product's tables.
    pub changes: Option<C>,
    /// Where the job continues.
    pub then: Then,
    /// The provider's name for what was made.
    pub provider_ref: Option<String>,
    /// Counts of what the stage skipped.
    pub skipped: Skipped,
}

/// The result of a stage's look.
#[derive(Debug)]
pub enum ErasedPrepared<C> {
    /// Run the stage.
    NoEffect,
    /// Store this intent, then run the stage.
    Effect(Box<Intent>),
    /// There is nothing to do; this is the outcome.
    Done(ErasedOutcome<C>),
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, StageFault>> + Send + 'a>>;

/// A stage without its output type.
pub trait ErasedStage<P: Product>: Send + Sync {
    /// See [`Stage::prepare`].
    fn prepare<'a>(&'a self, cx: &'a Context<'a, P>) -> Boxed<'a, ErasedPrepared<P::Changes>>;
    /// See [`Stage::run`].
    fn run<'a>(&'a self, cx: &'a Context<'a, P>) -> Boxed<'a, ErasedOutcome<P::Changes>>;
}

struct Eraser<S>(S);

impl<P: Product, S: Stage<Product = P>> ErasedStage<P> for Eraser<S> {
    fn prepare<'a>(&'a self, cx: &'a Context<'a, P>) -> Boxed<'a, ErasedPrepared<P::Changes>> {
        Box::pin(async move {
            Ok(match self.0.prepare(cx).await? {
                Prepared::NoEffect(_) => ErasedPrepared::NoEffect,
                Prepared::Effect(intent) => ErasedPrepared::Effect(intent),
                Prepared::Done(outcome) => ErasedPrepared::Done(erase(S::NAME, outcome)?),
            })
        })
    }

    fn run<'a>(&'a self, cx: &'a Context<'a, P>) -> Boxed<'a, ErasedOutcome<P::Changes>> {
        Box::pin(async move { Ok(erase(S::NAME, self.0.run(cx).await?)?) })
    }
}

fn erase<O: Serialize, C>(
    stage: &'static str,
    outcome: StageOutcome<O, C>,
) -> Result<ErasedOutcome<C>, EngineFault> {
    let StageOutcome {
        output,
        children,
        changes,
        then,
        provider_ref,
        skipped,
    } = outcome;
    let output = output
        .map(|output| to_raw_value(&output))
        .transpose()
        .map_err(|error| EngineFault::Shape(stage, error))?;
    Ok(ErasedOutcome {
        output,
        children,
        changes,
        then,
        provider_ref,
        skipped,
    })
}

struct Entry<P: Product> {
    info: StageInfo,
    stage: Box<dyn ErasedStage<P>>,
}

/// An ordered list of stages on a lane.
pub struct Pipeline<P: Product> {
    /// The durable name.
    pub name: &'static str,
    /// The lane that its jobs run on.
    pub lane: Lane,
    entries: Vec<Entry<P>>,
}

impl<P: Product> Pipeline<P> {
    #[must_use]
    pub const fn new(name: &'static str, lane: Lane) -> Self {
        Self {
            name,
            lane,
            entries: Vec::new(),
        }
    }

    /// Adds the next stage.
    ///
    /// # Panics
    /// Where its name is taken or a need is not earlier in the list: both are defects that show at
    /// every start.
    #[must_use]
    pub fn then<S: Stage<Product = P>>(self, stage: S) -> Self {
        self.add(stage, false)
    }

    /// Adds a stage that is reached by a jump only.
    ///
    /// # Panics
    /// As [`Pipeline::then`].
    #[must_use]
    pub fn off_path<S: Stage<Product = P>>(self, stage: S) -> Self {
        self.add(stage, true)
    }

    fn add<S: Stage<Product = P>>(mut self, stage: S, off_path: bool) -> Self {
        assert!(
            self.info(S::NAME).is_none(),
            "{}: there are two stages `{}`",
            self.name,
            S::NAME
        );
        for need in S::NEEDS {
            assert!(
                self.info(need).is_some(),
                "{}: `{}` needs `{need}`, which is not earlier",
                self.name,
                S::NAME
            );
        }
        let info = StageInfo {
            name: S::NAME,
            version: S::VERSION,
            needs: S::NEEDS,
            retry: S::RETRY,
            timeout: S::TIMEOUT,
            effect: S::EFFECT,
            off_path,
        };
        self.entries.push(Entry {
            info,
            stage: Box::new(Eraser(stage)),
        });
        self
    }

    /// Returns the first stage's name.
    ///
    /// # Panics
    /// Where the pipeline is empty.
    #[must_use]
    pub fn first(&self) -> &'static str {
        self.entries
            .first()
            .expect("a pipeline has at least one stage")
            .info
            .name
    }

    pub fn stages(&self) -> impl Iterator<Item = &StageInfo> {
        self.entries.iter().map(|entry| &entry.info)
    }

    #[must_use]
    pub fn stage(&self, name: &str) -> Option<(&StageInfo, &dyn ErasedStage<P>)> {
        self.entries
            .iter()
            .find(|entry| entry.info.name == name)
            .map(|entry| (&entry.info, entry.stage.as_ref()))
    }

    /// Returns the stage that follows `name` in the list, without those reached by a jump only.
    #[must_use]
    pub fn after(&self, name: &str) -> Option<&'static str> {
        let at = self
            .entries
            .iter()
            .position(|entry| entry.info.name == name)?;
        self.entries[at + 1..]
            .iter()
            .find(|entry| !entry.info.off_path)
            .map(|entry| entry.info.name)
    }

    fn info(&self, name: &str) -> Option<&StageInfo> {
        self.stages().find(|info| info.name == name)
    }
}

/// All pipelines: the one whose jobs arrive as intake, and those of follow-ups.
pub struct Registry<P: Product> {
    intake: Pipeline<P>,
    follow_ups: Vec<Pipeline<P>>,
}

impl<P: Product> Registry<P> {
    /// Creates a registry of these pipelines.
    #[must_use]
    pub const fn new(intake: Pipeline<P>, follow_ups: Vec<Pipeline<P>>) -> Self {
        Self { intake, follow_ups }
    }

    /// Returns the pipeline of intake jobs.
    #[must_use]
    pub const fn intake(&self) -> &Pipeline<P> {
        &self.intake
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Pipeline<P>> {
        self.iter().find(|pipeline| pipeline.name == name)
    }

    /// Iterates over the pipelines; that of intake is the first.
    pub fn iter(&self) -> impl Iterator<Item = &Pipeline<P>> {
        std::iter::once(&self.intake).chain(&self.follow_ups)
    }
}
