//! The fault of a call that the governor did not admit.

use std::time::Duration;

use tokio::time::Instant;

use super::hold_cache::Held;
use super::scope::Target;
use crate::fault::{Class, Fault, StageFault, WaitOn};
use crate::job::WaitReason;

/// The governor did not admit a call.
#[derive(Debug, thiserror::Error)]
pub enum GovernorFault {
    /// The destination is held.
    #[error("{reason} and is held")]
    Held {
        /// The scope of the hold: the destination, its permits, or its shared limit.
        scope: String,
        /// The reason, as a clause.
        reason: String,
        /// The remaining time of the hold, as far as this replica knows.
        left: Duration,
        /// Whether only a permit of the destination is missing. A job that waits in place
        /// meanwhile keeps a permit of its lane.
        for_permit: bool,
    },
    /// The destination must be held, and the hold cannot be stored.
    #[error("a hold of {scope} cannot be stored: {why}")]
    NotPlaced {
        /// The scope of the hold.
        scope: String,
        /// The message of the store's fault.
        why: String,
        /// The class of the store's fault.
        class: Class,
    },
}

impl GovernorFault {
    pub(super) fn held(target: &Target, held: Held, now: Instant) -> Self {
        let left = held.until.saturating_duration_since(now);
        Self::Held {
            scope: target.text.clone(),
            reason: held.reason,
            left,
            for_permit: target.is_permits,
        }
    }

    pub(super) fn not_placed(target: &Target, fault: &StageFault) -> Self {
        Self::NotPlaced {
            scope: target.text.clone(),
            why: fault.message(),
            class: fault.class(),
        }
    }
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for GovernorFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Held { .. } => "governor.held",
            Self::NotPlaced { .. } => "governor.hold_not_stored",
        }
    }

    fn class(&self) -> Class {
        match self {
            // A hold has no counter to observe: it exists or it does not.
            Self::Held { scope, .. } => Class::Wait(WaitOn {
                reason: WaitReason::Hold,
                key: format!("hold:{scope}"),
                observed: 0,
            }),
            Self::NotPlaced { class, .. } => class.clone(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Held { scope, .. } => {
                format!(
                    "The job continues when the hold ends; `dispatch holds release '{scope}'` ends the hold now."
                )
            }
            Self::NotPlaced { .. } => {
                "Check Postgres: its log, its connections, its disk.".to_owned()
            }
        }
    }
}
