//! The engine: it knows that there are stages, not which, and does no I/O.
//!
//! A [`Pipeline`] is an ordered list of [`Stage`]s. A stage's outcome is data ([`StageOutcome`]); [`decide`] turns what came of a
//! run into what must be committed ([`Commit`]). Carrying it out is the business of `store` and `worker`.

mod checkpoint;
mod decide;
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
    AttemptOutcome, AttemptRecord, CheckpointRecord, Commit, Decision, EffectOutcome, Ended, Failure, Next, Position, Record,
    decide,
};
pub use effect::{Effect, Intent, PastEffect, Planned, UnknownPolicy, effect_key, judge};
pub use kept::{Kept, Partial, ShouldEnd};
pub use pipeline::{ErasedOutcome, ErasedPrepared, ErasedStage, Lane, Pipeline, Registry, StageInfo};
pub use retry::RetryPolicy;
pub use skipped::Skipped;
pub use stage::{
    Child, Context, EngineFault, NoEffect, PrepareResult, Prepared, Product, Stage, StageOutcome, StageResult, Then,
};

/// How a concurrent piece of work is started: `app` supplies it, names it and awaits it.
pub type Spawn = Arc<dyn Fn(&'static str, Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync>;
