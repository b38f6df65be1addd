//! Effects: calls that change the outside, and the rules by which a repeated attempt is judged.

use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::job::{EffectClass, EffectState, Epoch, Generation, JobId};

/// An effect that a stage is about to have, stored before the call.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The target of the effect, unique within the stage: part of its key.
    pub target: String,
    /// What a repeated call can do.
    pub class: EffectClass,
    /// How long after the first intent the provider dedupes on the key; afterwards a keyed effect
    /// is judged as at-least-once.
    pub keyed_for: Option<Duration>,
    /// The resource that only one effect at a time may change (`work_item:3:17`), across all jobs
    /// and replicas.
    pub resource: Option<String>,
    /// Facts that a later look needs (a revision, a value). No secrets.
    pub detail: Value,
    /// What to do if the outcome is unknown and cannot be determined.
    pub unknown: UnknownPolicy,
    /// The longest time for the call.
    pub timeout: Duration,
}

/// A destination's policy for an at-least-once effect whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownPolicy {
    /// Send it again: a duplicate is better than nothing.
    Resend,
    /// Park the job: a person decides.
    Hold,
}

/// An effect whose intent is stored, so the stage's `run` may now make the call.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The idempotency key, the same in all attempts of a generation.
    pub key: String,
    /// The class as judged now: a keyed effect after its window is at-least-once.
    pub class: EffectClass,
    /// The facts of the intent.
    pub detail: Value,
    /// When the call must be over, by the monotonic clock. The deadline is set before the intent
    /// is stored, so a process that was frozen in between does not send late.
    pub deadline: Instant,
    /// Whether an earlier attempt with the same key may have gone through.
    pub repeated: bool,
}

/// Returns the key of an effect: SHA-256 over job, generation, stage and target, in lowercase
/// base32 without padding (52 characters, RFC 4648). Its first 25 characters serve as Discord's
/// nonce.
#[must_use]
pub fn effect_key(job: JobId, generation: Generation, stage: &str, target: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(job.0.as_bytes());
    hash.update(generation.0.to_be_bytes());
    hash.update(stage.as_bytes());
    hash.update([0]);
    hash.update(target.as_bytes());
    data_encoding::BASE32_NOPAD
        .encode(&hash.finalize())
        .to_ascii_lowercase()
}

/// The ledger's row of an earlier intent with the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastEffect {
    /// The last known state.
    pub state: EffectState,
    /// Whether an attempt before the last one may have had the effect.
    pub maybe_done: bool,
    /// The epoch of the claim that stored the intent.
    pub epoch: Epoch,
    /// The age of the first intent, counted since the last attempt that is known to have had no
    /// effect.
    pub age: Duration,
    /// How long the earlier call may still be under way; zero if its deadline has passed.
    pub may_still_run: Duration,
}

impl PastEffect {
    /// Returns whether it is known that no attempt had the effect: then the next attempt is like
    /// the first.
    #[must_use]
    pub const fn is_undone(&self) -> bool {
        matches!(self.state, EffectState::Failed) && !self.maybe_done
    }

    /// Returns whether the last attempt may have had the effect. The call of an intent without an
    /// outcome was not made if the intent is of the same claim: a claim commits the outcome of
    /// every call before it stores another intent.
    #[must_use]
    pub fn is_open(&self, epoch: Epoch) -> bool {
        match self.state {
            EffectState::Unknown | EffectState::Confirmed => true,
            EffectState::InFlight => self.epoch < epoch,
            EffectState::Failed => false,
        }
    }

    /// Returns whether any attempt before the present one may have had the effect.
    #[must_use]
    pub fn may_be_done(&self, epoch: Epoch) -> bool {
        self.maybe_done || self.is_open(epoch)
    }
}

/// The decision about an intended effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planned {
    /// The call may be made.
    Go {
        /// The class as judged now.
        class: EffectClass,
        /// Whether a duplicate becomes possible, which must be recorded first.
        record_unknown: bool,
    },
    /// An earlier owner's call may still be under way: look again after this time.
    NotYet(Duration),
    /// The outcome cannot be determined, and by the destination's policy a person decides.
    Held,
}

/// Judges an intent by the ledger's row of earlier ones. Pure.
#[must_use]
pub fn judge(intent: &Intent, past: Option<PastEffect>, epoch: Epoch) -> Planned {
    let fresh = Planned::Go {
        class: intent.class,
        record_unknown: false,
    };
    let Some(past) = past else { return fresh };
    if past.is_undone() {
        return fresh;
    }
    let window_over = intent.class == EffectClass::Keyed
        && intent
            .keyed_for
            .is_some_and(|window| past.age + intent.timeout >= window);
    let class = if window_over {
        EffectClass::AtLeastOnce
    } else {
        intent.class
    };
    if class != EffectClass::AtLeastOnce || !past.may_be_done(epoch) {
        return Planned::Go {
            class,
            record_unknown: false,
        };
    }
    if past.state == EffectState::InFlight && past.epoch < epoch && !past.may_still_run.is_zero() {
        return Planned::NotYet(past.may_still_run);
    }
    match intent.unknown {
        UnknownPolicy::Resend => Planned::Go {
            class,
            record_unknown: true,
        },
        UnknownPolicy::Hold => Planned::Held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(class: EffectClass, unknown: UnknownPolicy) -> Intent {
        let keyed_for = (class == EffectClass::Keyed).then_some(Duration::from_secs(120));
        let timeout = Duration::from_secs(10);
        Intent {
            target: "t".into(),
            class,
            keyed_for,
            resource: None,
            detail: Value::Null,
            unknown,
            timeout,
        }
    }

    fn past(state: EffectState, age: u64, may_still_run: u64) -> Option<PastEffect> {
        let (age, may_still_run) = (Duration::from_secs(age), Duration::from_secs(may_still_run));
        Some(PastEffect {
            state,
            maybe_done: false,
            epoch: Epoch(1),
            age,
            may_still_run,
        })
    }

    #[test]
    fn a_refused_attempt_does_not_hide_an_unknown_one_before_it() {
        let keyed = intent(EffectClass::Keyed, UnknownPolicy::Hold);
        let past = past(EffectState::Failed, 300, 0).map(|past| PastEffect {
            maybe_done: true,
            ..past
        });
        assert_eq!(judge(&keyed, past, Epoch(2)), Planned::Held);
    }

    #[test]
    fn an_intent_of_the_same_claim_was_never_called_for() {
        let blind = intent(EffectClass::AtLeastOnce, UnknownPolicy::Hold);
        let go = judge(&blind, past(EffectState::InFlight, 1, 9), Epoch(1));
        assert_eq!(
            go,
            Planned::Go {
                class: EffectClass::AtLeastOnce,
                record_unknown: false
            }
        );
    }

    #[test]
    fn a_blind_effect_in_flight_waits_for_its_deadline_and_is_recorded_before_it_is_repeated() {
        let blind = intent(EffectClass::AtLeastOnce, UnknownPolicy::Resend);
        let waits = judge(&blind, past(EffectState::InFlight, 3, 7), Epoch(2));
        assert_eq!(waits, Planned::NotYet(Duration::from_secs(7)));
        let go = judge(&blind, past(EffectState::InFlight, 11, 0), Epoch(2));
        assert_eq!(
            go,
            Planned::Go {
                class: EffectClass::AtLeastOnce,
                record_unknown: true
            }
        );
        let refused = judge(&blind, past(EffectState::Failed, 11, 0), Epoch(2));
        assert_eq!(
            refused,
            Planned::Go {
                class: EffectClass::AtLeastOnce,
                record_unknown: false
            }
        );
    }

    #[test]
    fn only_an_attempt_whose_outcome_is_not_known_to_be_none_may_be_done() {
        let of = |state, maybe_done| {
            past(state, 3, 0).map(|past| PastEffect { maybe_done, ..past }.may_be_done(Epoch(2)))
        };
        assert_eq!(of(EffectState::Failed, false), Some(false));
        assert_eq!(of(EffectState::Failed, true), Some(true));
        assert_eq!(of(EffectState::Unknown, false), Some(true));
        assert_eq!(
            of(EffectState::InFlight, false),
            Some(true),
            "its owner is gone"
        );
    }

    #[test]
    fn an_unknown_outcome_is_not_sent_again_under_the_policy_hold() {
        let blind = intent(EffectClass::AtLeastOnce, UnknownPolicy::Hold);
        assert_eq!(
            judge(&blind, past(EffectState::Unknown, 11, 0), Epoch(2)),
            Planned::Held
        );
    }

    #[test]
    fn a_keyed_effect_is_repeated_within_its_window_and_blind_after_it() {
        let keyed = intent(EffectClass::Keyed, UnknownPolicy::Resend);
        let within = judge(&keyed, past(EffectState::InFlight, 109, 7), Epoch(2));
        assert_eq!(
            within,
            Planned::Go {
                class: EffectClass::Keyed,
                record_unknown: false
            }
        );
        let after = judge(&keyed, past(EffectState::InFlight, 110, 0), Epoch(2));
        assert_eq!(
            after,
            Planned::Go {
                class: EffectClass::AtLeastOnce,
                record_unknown: true
            }
        );
    }

    #[test]
    fn a_keyed_effect_of_which_nothing_came_has_its_whole_window_again() {
        let keyed = intent(EffectClass::Keyed, UnknownPolicy::Resend);
        let again = judge(&keyed, past(EffectState::Failed, 600, 0), Epoch(2));
        assert_eq!(
            again,
            Planned::Go {
                class: EffectClass::Keyed,
                record_unknown: false
            }
        );
    }

    #[test]
    fn a_key_is_52_characters_and_differs_by_generation() {
        let job = JobId::fresh();
        let key = effect_key(job, Generation(1), "deliver_message", "x");
        assert_eq!(key.len(), 52);
        assert_ne!(key, effect_key(job, Generation(2), "deliver_message", "x"));
    }
}
