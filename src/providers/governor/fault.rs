//! Why a destination was not called.

use std::time::Duration;

use tokio::time::Instant;

use super::hold_cache::Held;
use super::scope::Target;
use crate::fault::{Class, Fault, StageFault, WaitOn};
use crate::job::WaitReason;

/// A destination was not called.
#[derive(Debug, thiserror::Error)]
pub enum GovernorFault {
    /// It is held.
    #[error("{reason} and is held")]
    Held {
        /// The scope that is held: its own, or that of all which the other side limits together.
        scope: String,
        /// Why, as a clause.
        reason: String,
        /// How long the hold still lasts, as far as this replica knows.
        left: Duration,
        /// Whether nothing is missing but a seat. Who waits for one in place keeps a seat of its lane from others meanwhile.
        for_seat: bool,
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
    pub(super) fn held(target: &Target, held: Held, now: Instant) -> Self {
        let left = held.until.saturating_duration_since(now);
        Self::Held { scope: target.text.clone(), reason: held.reason, left, for_seat: target.is_seats }
    }

    pub(super) fn not_placed(target: &Target, fault: &StageFault) -> Self {
        Self::NotPlaced { scope: target.text.clone(), why: fault.message(), class: fault.class() }
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
