//! Errors of operations.

use crate::erasure::ErasureError;
use crate::fault::{Class, Fault as _, StageFault};
use crate::store::StoreError;
use crate::tracker::TrackerFault;

/// Why an operation was not carried out. The text states what to do instead.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// Something that the operation names does not exist.
    #[error("{0}")]
    Unknown(String),
    /// The operation is not possible in the present state.
    #[error("{0}")]
    NotPossible(String),
    /// What was given is not valid.
    #[error("{0}")]
    Invalid(String),
    /// A call to a provider failed.
    #[error("{}; {}", .0.message(), .0.hint())]
    Provider(StageFault),
    /// A request to the engine's tables failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A request to the product's tables failed.
    #[error(transparent)]
    Tracker(#[from] TrackerFault),
    /// An erasure failed.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// A state for the audit log cannot be encoded.
    #[error("the change cannot be encoded as JSON")]
    Encode(#[from] serde_json::Error),
}

impl OperationError {
    /// Returns whether a name that was given exists nowhere, or what was given contradicts itself.
    #[must_use]
    pub const fn is_of_input(&self) -> bool {
        matches!(
            self,
            Self::Tracker(TrackerFault::UnknownReference { .. } | TrackerFault::Document { .. })
        )
    }

    /// Returns whether the product's tables cannot be reached.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        matches!(self, Self::Tracker(error) if error.class() == Class::Infrastructure)
    }
}
