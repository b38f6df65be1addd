//! The names of what is stuck, each with its meaning, its threshold and the next action.

use std::str::FromStr;

use schemars::JsonSchema;
use serde::Serialize;

/// What people need to know about a code.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub(super) sentence: &'static str,
    pub(super) predicate: &'static str,
    pub(super) after_seconds: u32,
    pub(super) next: &'static str,
    pub(super) operation: Option<&'static str>,
}

/// Declares [`StuckCode`] with the word of each code and what people need to know about it.
macro_rules! codes {
    ($($name:ident $word:literal after $seconds:literal s: $sentence:literal, $predicate:literal, $next:literal, $operation:expr;)+) => {
        /// Why jobs do not move. The words are those of the gauge `dispatch_stuck`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
        pub enum StuckCode {
            $(#[doc = $sentence] #[serde(rename = $word)] $name,)+
        }

        impl StuckCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Returns the word of the code.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }

            /// Returns the time after which jobs are counted.
            pub(crate) const fn after(self) -> time::Duration {
                time::Duration::seconds(self.about().after_seconds as i64)
            }

            pub(super) const fn about(self) -> About {
                match self {
                    $(Self::$name => About {
                        sentence: $sentence,
                        predicate: $predicate,
                        after_seconds: $seconds,
                        next: $next,
                        operation: $operation,
                    },)+
                }
            }
        }
    };
}

codes! {
    OwnerDead "owner_dead" after 10 s:
        "The owner of the job is dead, and no worker has taken the job over.",
        "running, and the owner's lease ended more than 10 s ago",
        "dispatch worker",
        None;
    NoProgress "no_progress" after 900 s:
        "A live replica runs the job and has committed nothing for 15 minutes.",
        "running with a live owner, claimed and last changed more than 15 min ago (of the first 10,000 running jobs)",
        "dispatch jobs park ID, then dispatch jobs retry ID",
        Some("park");
    RetryingLong "retrying_long" after 3600 s:
        "The job has been failing and retried for an hour.",
        "ready or running, and first failed more than 1 h ago (of the oldest 1,000 failing jobs of each error code)",
        "dispatch jobs retry ID",
        Some("retry");
    Parked "parked" after 0 s:
        "The job needs a person.",
        "parked; jobs of unknown_outcome and crash_loop are counted here too",
        "dispatch jobs retry ID",
        Some("retry");
    UnknownOutcome "unknown_outcome" after 0 s:
        "A call may or may not have had its effect, and a repeat may make a duplicate.",
        "not done, with the error code unknown_outcome",
        "dispatch jobs show ID, then dispatch jobs effect ID --effect KEY with --done or --not-done",
        Some("effect");
    WaitingConfiguration "waiting_configuration" after 3600 s:
        "The job waits for the choice of an account, or for an account that is disabled.",
        "waiting for configuration or for a disabled installation for more than 1 h (of the first 10,000 causes)",
        "dispatch jobs configure ID --account ACCOUNT, or dispatch integrations enable ACCOUNT",
        Some("configure");
    WaitingReauthentication "waiting_reauthentication" after 300 s:
        "The job waits for new tokens of an identity.",
        "waiting for reauthentication for more than 5 min (of the first 10,000 causes)",
        "dispatch identities list, then dispatch identities set-tokens",
        Some("set_tokens");
    WaitingVersion "waiting_version" after 300 s:
        "The job waits for a worker of a newer version.",
        "waiting for a version for more than 5 min (of the first 10,000 causes)",
        "dispatch replicas, then dispatch worker of the newer version",
        None;
    Held "held" after 600 s:
        "The job waits for the end of a hold, or for a disabled destination.",
        "waiting for a hold for more than 10 min",
        "dispatch holds release SCOPE, or dispatch destinations enable",
        Some("release");
    NotWoken "not_woken" after 60 s:
        "The job is due and has no wake-up: all workers are busy, or none publishes.",
        "ready, without a wake-up, and due for more than 1 min (of the first 10,000 pairs of pipeline and organization; 1,000 where all codes are read)",
        "dispatch lanes, then dispatch worker, or RabbitMQ started again",
        None;
    NoConsumers "no_consumers" after 30 s:
        "The job is due, and no live replica serves its lane.",
        "ready and due for more than 30 s, while no live replica that takes new jobs serves the lane",
        "dispatch worker",
        None;
    CrashLoop "crash_loop" after 0 s:
        "The owners of the job died again and again at the same stage.",
        "not done, with the error code crash_loop",
        "dispatch jobs retry ID",
        Some("retry");
}

/// A word that is no code.
#[derive(Debug, thiserror::Error)]
#[error("expected a stuck code, got `{word}`; use {}", words())]
pub struct UnknownCode {
    word: String,
}

fn words() -> String {
    let words: Vec<&str> = StuckCode::ALL.iter().map(|code| code.word()).collect();
    words.join(", ")
}

impl FromStr for StuckCode {
    type Err = UnknownCode;

    fn from_str(word: &str) -> Result<Self, UnknownCode> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.word() == word)
            .ok_or_else(|| UnknownCode {
                word: word.to_owned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_parsed_from_its_word_and_written_as_it() {
        for code in StuckCode::ALL {
            assert_eq!(code.word().parse::<StuckCode>().unwrap(), *code);
            assert_eq!(serde_json::to_value(code).unwrap(), code.word());
        }
        let error = "lost".parse::<StuckCode>().unwrap_err().to_string();
        assert!(
            error.starts_with("expected a stuck code, got `lost`; use owner_dead, no_progress,"),
            "{error}"
        );
    }
}
