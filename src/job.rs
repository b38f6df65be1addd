//! The nouns of the engine: a job, its numbers and its states. No I/O.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

/// A job's id: UUID version 7 (RFC 9562), so ids sort by the time of their making and a partition boundary is a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A new id, of now.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// When the job was accepted, to the millisecond, by the clock of who accepted it; for a follow-up, when its parent was.
    #[must_use]
    pub fn accepted_at(self) -> OffsetDateTime {
        let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |at| at.to_unix());
        OffsetDateTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanos)
    }

    /// The id of the follow-up that `parent`, in `generation`, makes for `target`: always the same one, so that making it
    /// twice makes it once. It keeps the parent's timestamp, so it lives in the parent's partition.
    #[must_use]
    pub fn of_child(parent: Self, generation: Generation, target: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(parent.0.as_bytes());
        hash.update(generation.0.to_be_bytes());
        hash.update(target.as_bytes());
        let digest = hash.finalize();
        let mut bytes = *parent.0.as_bytes();
        bytes[6..16].copy_from_slice(&digest[..10]);
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// The fencing number: one more with every claim and every operator's action. A write that names an older one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

/// Raised by an operator's re-run and by `configure`; checkpoints belong to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i32);

/// One try of one stage, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub i32);

/// One incarnation of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub i64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes an enum whose values are stored and shown as fixed lowercase words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// Every value, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word stored in Postgres, sent in messages and shown to people.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::job::UnknownWord;

            fn from_str(word: &str) -> Result<Self, $crate::job::UnknownWord> {
                Self::ALL.iter().copied().find(|value| value.word() == word).ok_or_else(|| $crate::job::UnknownWord {
                    kind: stringify!($name),
                    word: word.to_owned(),
                    right: Self::ALL.iter().map(|value| value.word()).collect::<Vec<_>>().join(", "),
                })
            }
        }
    };
}
pub(crate) use words;

/// A word that is not one of those an enum knows.
#[derive(Debug, thiserror::Error)]
#[error("{kind} has no `{word}`; right would be one of: {right}")]
pub struct UnknownWord {
    /// The enum.
    pub kind: &'static str,
    /// What was read.
    pub word: String,
    /// What would be right.
    pub right: String,
}

words! {
    /// Where a job stands.
    JobState {
        /// Due at `due_at`, or later a retry.
        Ready = "ready",
        /// Has an owner.
        Running = "running",
        /// Waits for a cause to go away.
        Waiting = "waiting",
        /// Done.
        Succeeded = "succeeded",
        /// Ended by a person or a producer.
        Cancelled = "cancelled",
        /// A person must look.
        Parked = "parked",
    }
}

impl JobState {
    /// Whether nothing more will happen by itself and no person is asked for.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cancelled)
    }
}

words! {
    /// Why a job waits.
    WaitReason {
        /// For its follow-ups.
        Children = "children",
        /// For somebody to choose an account.
        Configuration = "configuration",
        /// For an identity's tokens.
        Reauthentication = "reauthentication",
        /// For an installation to be enabled.
        InstallationDisabled = "installation_disabled",
        /// For a hold to be released.
        Hold = "hold",
        /// For a worker that knows its schema.
        Version = "version",
    }
}

words! {
    /// What a repeated call to the outside can do.
    EffectClass {
        /// Compare-and-set: repeating gives the same state, guarded by a revision.
        CompareAndSet = "K1",
        /// Keyed: the other side dedupes on our key.
        Keyed = "K2",
        /// Blind: neither.
        AtLeastOnce = "K3",
    }
}

words! {
    /// What is known of an effect.
    EffectState {
        /// The intent is stored, the call's outcome is not.
        InFlight = "in_flight",
        /// It happened.
        Confirmed = "confirmed",
        /// It did not happen.
        Failed = "failed",
        /// It may have happened.
        Unknown = "unknown",
    }
}

/// What the engine knows of a claimed job while it runs.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The pipeline it goes through.
    pub pipeline: String,
    /// The tenant's slug.
    pub organization: String,
    /// The account chosen by `configure`; it wins over the payload's.
    pub account: Option<String>,
    /// The producer, or the pipeline of the parent.
    pub source: String,
    /// The payload as stored: the intake request, or what the parent's last stage wrote for this follow-up.
    pub payload: Box<serde_json::value::RawValue>,
    /// The job that made this follow-up.
    pub parent: Option<JobId>,
    /// Of this run.
    pub generation: Generation,
    /// Of this claim.
    pub epoch: Epoch,
    /// The stage due.
    pub stage: String,
    /// Of the stage due.
    pub attempt: Attempt,
    /// Not to be worked on after this time.
    pub deadline: Option<OffsetDateTime>,
    /// W3C trace context of the producer, if it sent one.
    pub traceparent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_id_is_a_version_7_uuid_that_repeats() {
        let parent = JobId::fresh();
        let one = JobId::of_child(parent, Generation(1), "messaging:team");
        assert_eq!(one, JobId::of_child(parent, Generation(1), "messaging:team"));
        assert_ne!(one, JobId::of_child(parent, Generation(2), "messaging:team"));
        assert_ne!(one, JobId::of_child(parent, Generation(1), "messaging:other"));
        assert_eq!(one.0.get_version_num(), 7);
        assert_eq!(one.0.as_bytes()[..6], parent.0.as_bytes()[..6]);
    }

    #[test]
    fn an_id_says_when_its_job_was_accepted() {
        let id: JobId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        assert_eq!(id.accepted_at(), time::macros::datetime!(2022-02-22 19:22:22 UTC), "the example of RFC 9562, A.6");
        assert_eq!(JobId::of_child(id, Generation(1), "x").accepted_at(), id.accepted_at());
    }

    #[test]
    fn words_read_back_and_an_unknown_one_says_what_is_right() {
        for state in JobState::ALL {
            assert_eq!(state.word().parse::<JobState>().unwrap(), *state);
        }
        let error = "failed".parse::<JobState>().unwrap_err().to_string();
        assert!(error.contains("parked"), "{error}");
    }
}
