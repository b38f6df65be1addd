//! The nouns of the engine: a job, its ids, counters and states. No I/O.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

/// The id of a job: a UUID version 7 (RFC 9562), so ids sort by creation time and a partition
/// boundary is a date.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct JobId(#[schemars(with = "String")] pub Uuid);

impl JobId {
    /// Creates a new id with the present time.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// Returns the smallest id of a job that is accepted at this time, to the millisecond.
    #[must_use]
    pub fn first_of(at: OffsetDateTime) -> Self {
        let ms = at.unix_timestamp_nanos() / 1_000_000;
        let ms = u128::try_from(ms).unwrap_or_default() & 0xffff_ffff_ffff;
        Self(Uuid::from_u128((ms << 80) | (0x7 << 76) | (0b10 << 62)))
    }

    /// Returns when the job was accepted, to the millisecond, by the clock of the worker that
    /// accepted it. For a follow-up, returns when its parent was accepted.
    #[must_use]
    pub fn accepted_at(self) -> OffsetDateTime {
        let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |at| at.to_unix());
        OffsetDateTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanos)
    }

    /// Returns the id of the follow-up that `parent`, in `generation`, makes for `target`. The id
    /// is always the same, so a repeated commit makes the follow-up once. It keeps the parent's
    /// timestamp, so the follow-up is in the parent's partition.
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

/// The fencing token of a job: raised by every claim, every action on the job and every takeover.
/// A write with an older epoch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

/// The generation of a job's run, raised by `configure`. Checkpoints belong to a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i32);

/// The number of an attempt of a stage, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub i32);

/// The id of one incarnation of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub i64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Declares an enum whose values are stored and shown as fixed words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word that is stored in Postgres, sent in messages and shown to people.
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

/// A word that stands for no value of an enum.
#[derive(Debug, thiserror::Error)]
#[error("{kind}: expected one of {right}; got `{word}`")]
pub struct UnknownWord {
    /// The name of the enum.
    pub kind: &'static str,
    pub word: String,
    /// The words of the enum.
    pub right: String,
}

words! {
    /// The state of a job.
    JobState {
        /// The job is due at `due_at`.
        Ready = "ready",
        /// A replica has claimed the job.
        Running = "running",
        /// The job waits for its follow-ups or for a named cause.
        Waiting = "waiting",
        /// The job and all its follow-ups are done.
        Succeeded = "succeeded",
        /// A person, a producer or the retention has ended the job.
        Cancelled = "cancelled",
        /// The job needs a person.
        Parked = "parked",
    }
}

impl JobState {
    /// Returns whether the job is over: it succeeded or was cancelled.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cancelled)
    }
}

words! {
    /// The reason why a job waits.
    WaitReason {
        /// The job waits for its follow-ups.
        Children = "children",
        /// The job waits until an account is chosen.
        Configuration = "configuration",
        /// The job waits for new tokens of an identity.
        Reauthentication = "reauthentication",
        /// The job waits until an installation is enabled.
        InstallationDisabled = "installation_disabled",
        /// The job waits until a hold ends.
        Hold = "hold",
        /// The job waits for a worker that knows its schema, pipeline, stage or checkpoints.
        Version = "version",
    }
}

words! {
    /// The class of an effect: what a repeated call can do.
    EffectClass {
        /// A compare-and-set: a repeated call leads to the same state, guarded by a revision.
        CompareAndSet = "K1",
        /// Keyed: the provider dedupes on the idempotency key.
        Keyed = "K2",
        /// At-least-once: a repeated call may be a duplicate.
        AtLeastOnce = "K3",
    }
}

words! {
    /// The known state of an effect.
    EffectState {
        /// The intent is stored, the outcome of the call is not.
        InFlight = "in_flight",
        /// The effect happened.
        Confirmed = "confirmed",
        /// The effect did not happen.
        Failed = "failed",
        /// The effect may have happened.
        Unknown = "unknown",
    }
}

/// A claimed job, as the engine uses it.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    /// The pipeline that the job passes through.
    pub pipeline: String,
    /// The slug of the organization.
    pub organization: String,
    /// The account chosen by `configure`, which takes precedence over the payload's.
    pub account: Option<String>,
    /// The producer, or the pipeline of the parent.
    pub source: String,
    /// The payload as stored: the intake request, or the payload that the parent's last stage
    /// wrote for this follow-up.
    pub payload: Box<serde_json::value::RawValue>,
    /// The job that made this follow-up.
    pub parent: Option<JobId>,
    pub generation: Generation,
    pub epoch: Epoch,
    /// The stage due.
    pub stage: String,
    /// The attempt of the stage due.
    pub attempt: Attempt,
    /// The time after which no stage of the job runs.
    pub deadline: Option<OffsetDateTime>,
    /// The W3C trace context of the job.
    pub traceparent: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_id_is_a_version_7_uuid_that_repeats() {
        let parent = JobId::fresh();
        let one = JobId::of_child(parent, Generation(1), "messaging:team");
        assert_eq!(
            one,
            JobId::of_child(parent, Generation(1), "messaging:team")
        );
        assert_ne!(
            one,
            JobId::of_child(parent, Generation(2), "messaging:team")
        );
        assert_ne!(
            one,
            JobId::of_child(parent, Generation(1), "messaging:other")
        );
        assert_eq!(one.0.get_version_num(), 7);
        assert_eq!(one.0.as_bytes()[..6], parent.0.as_bytes()[..6]);
    }

    #[test]
    fn an_id_says_when_its_job_was_accepted() {
        let id: JobId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        assert_eq!(
            id.accepted_at(),
            time::macros::datetime!(2022-02-22 19:22:22 UTC),
            "the example of RFC 9562, A.6"
        );
        assert_eq!(
            JobId::of_child(id, Generation(1), "x").accepted_at(),
            id.accepted_at()
        );
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
