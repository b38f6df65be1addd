//! The engine: stages, pipelines and decisions, without I/O and without any particular stage.
//!
//! A [`Pipeline`] is an ordered list of [`Stage`]s. A stage's outcome is data ([`StageOutcome`]);
//! [`decide`] maps the result of a run to what must be committed ([`Commit`]). `store` and
//! `worker` carry it out.

mod checkpoint;
mod decide;
#[cfg(test)]
mod decide_tests;
mod effect;
mod kept;
mod pipeline;
mod retry;
mod skipped;
mod stage;

use std::pin::Pin;
use std::sync::Arc;

pub use checkpoint::{Checkpoint, Outputs};
pub use decide::{
    AttemptOutcome, AttemptRecord, CheckpointRecord, Commit, Decision, EffectOutcome, Ended,
    Failure, Next, Position, Record, decide,
};
pub use effect::{Effect, Intent, PastEffect, Planned, UnknownPolicy, effect_key, judge};
pub use kept::{Kept, Partial, ShouldEnd};
pub use pipeline::{
    ErasedOutcome, ErasedPrepared, ErasedStage, Lane, Pipeline, Registry, StageInfo,
};
pub use retry::RetryPolicy;
pub use skipped::Skipped;
pub use stage::{
    Child, Context, EngineFault, NoEffect, PrepareResult, Prepared, Product, Stage, StageOutcome,
    StageResult, Then,
};

/// Starts a named future concurrently. `app` supplies this function and awaits what it has
/// started.
pub type Spawn = Arc<dyn Fn(&'static str, Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;
