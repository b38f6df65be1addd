//! The product: the list of pipelines and their lanes, and the services that their stages use.

pub mod assignee_sync;
pub mod by_hand;
pub mod configuration_link;
pub mod connection_tests;
pub mod dispatch;
mod fault;
mod listing;
pub mod messaging;
mod services;
mod sign_in;
mod signed_in;
#[cfg(test)]
mod tests;

pub use fault::ProductFault;
pub use listing::{PipelineRow, StageRow, in_largest_unit, pipeline_rows};
pub use services::Services;
pub use signed_in::SignedIn;

use crate::engine::{Lane, Product, Registry};
use crate::tracker;

/// The product that the engine runs: its stages use [`Services`], its commits apply
/// [`tracker::Changes`].
#[derive(Debug, Clone, Copy)]
pub struct Dispatch;

impl Product for Dispatch {
    type Services = Services;
    type Changes = tracker::Changes;
}

/// The lane of incoming requests, after intake has stored them as rows.
pub const DISPATCH: Lane = Lane {
    name: "dispatch",
    queue: "dispatch.wake",
    wake_key: "wake.dispatch",
};
/// The lane of follow-ups that write assignees to other linked work items.
pub const ASSIGNEE_SYNC: Lane = Lane {
    name: "assignee_sync",
    queue: "dispatch.assignee-sync",
    wake_key: "wake.assignee_sync",
};
/// The lane of follow-ups that send messages to people.
pub const MESSAGING: Lane = Lane {
    name: "messaging",
    queue: "dispatch.messaging",
    wake_key: "wake.messaging",
};

/// Returns all pipelines, in the order in which they are listed to people.
///
/// # Panics
/// If a pipeline's list of stages is inconsistent. Such a defect shows at every start.
#[must_use]
pub fn registry() -> Registry<Dispatch> {
    Registry::new(
        dispatch::pipeline(),
        vec![assignee_sync::pipeline(), messaging::pipeline()],
    )
}

/// The place of a stage, for an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StagePlace {
    /// The k-th of n stages, from 1; `None` for a stage that only a jump reaches.
    pub position: Option<(usize, usize)>,
    /// The most attempts of the stage.
    pub attempts: i32,
}

/// Returns the place of a stage; `None` if this version does not know it.
#[must_use]
pub fn place_of(pipeline: &str, stage: &str) -> Option<StagePlace> {
    let registry = registry();
    let pipeline = registry.get(pipeline)?;
    let (info, _) = pipeline.stage(stage)?;
    let in_turn: Vec<_> = pipeline.stages().filter(|stage| !stage.off_path).collect();
    let at = in_turn.iter().position(|info| info.name == stage);
    Some(StagePlace {
        position: at.map(|at| (at + 1, in_turn.len())),
        attempts: info.retry.attempts,
    })
}
