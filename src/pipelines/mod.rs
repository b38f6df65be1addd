//! The product: the list of pipelines and their lanes, and what their stages reach the outside with.

pub mod assignee_sync;
pub mod connection_tests;
pub mod dispatch;
mod fault;
pub mod messaging;
mod services;
mod sign_in;
mod signed_in;
#[cfg(test)]
mod tests;

pub use fault::ProductFault;
pub use services::Services;
pub use signed_in::SignedIn;

use crate::engine::{Lane, Product, Registry};
use crate::tracker;

/// What the engine runs here: stages over [`Services`], commits that apply [`tracker::Changes`].
#[derive(Debug, Clone, Copy)]
pub struct Dispatch;

impl Product for Dispatch {
    type Services = Services;
    type Changes = tracker::Changes;
}

/// Incoming requests, once they are rows.
pub const DISPATCH: Lane = Lane { name: "dispatch", queue: "dispatch.wake", wake_key: "wake.dispatch" };
/// Assignees to other linked work items.
pub const ASSIGNEE_SYNC: Lane = Lane { name: "assignee_sync", queue: "dispatch.assignee-sync", wake_key: "wake.assignee_sync" };
/// Messages to people.
pub const MESSAGING: Lane = Lane { name: "messaging", queue: "dispatch.messaging", wake_key: "wake.messaging" };

/// All pipelines, in the order in which people see them.
///
/// # Panics
/// Where a pipeline's list is not sound: a defect seen at every start.
#[must_use]
pub fn registry() -> Registry<Dispatch> {
    Registry::new(dispatch::pipeline(), vec![assignee_sync::pipeline(), messaging::pipeline()])
}
