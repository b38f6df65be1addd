//! Why a destination was not called.

use std::time::Duration;

use tokio::time::Instant;

use super::Scope;
use super::copied::Held;
use crate::fault::{Class, Fault, StageFault, WaitOn};
use crate::job::WaitReason;

/// A destination was not called.
#[derive(Debug, thiserror::Error)]
pub enum GovernorFault {
    /// It is held.
    #[error("{reason} and is held")]
    Held {
        /// Its scope.
        scope: String,
        /// Why, as a clause.
        reason: String,
        /// How long the hold still lasts.
        left: Duration,
    },
    /// It must be left alone, and the hold that would say so cannot be stored.
    #[error("a hold of {scope} cannot be stored: {why}")]
    NotPlaced {
        /// Its scope.
        scope: String,
        /// What went wrong.
        why: String,
        /// Of that.
        class: Class,
    },
}

impl GovernorFault {
    pub(super) fn held(scope: &Scope, held: &Held) -> Self {
        let left = held.until.saturating_duration_since(Instant::now());
        Self::Held { scope: scope.to_string(), reason: held.reason.clone(), left }
    }

    pub(super) fn not_placed(scope: &Scope, fault: &StageFault) -> Self {
        Self::NotPlaced { scope: scope.to_string(), why: fault.message(), class: fault.class() }
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
            // Nothing is observed of a hold: it is there or it is not.
            Self::Held { scope, .. } => {
                Class::Wait(WaitOn { reason: WaitReason::Hold, key: format!("hold:{scope}"), observed: 0 })
            }
            Self::NotPlaced { class, .. } => class.clone(),
        }
    }

    fn hint(&self) -> String {
        match self {
            Self::Held { scope, .. } => {
                format!("It goes on by itself when the hold is over; `dispatch holds release '{scope}'` ends it now.")
            }
            Self::NotPlaced { .. } => "Look at Postgres: its log, its connections, its disk.".to_owned(),
        }
    }
}
