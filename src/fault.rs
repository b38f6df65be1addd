//! Failures as data: the error enum of every boundary classifies its failures, so that one
//! function ([`crate::engine::decide`]) decides what becomes of the job.

use std::error::Error;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::job::WaitReason;

/// The class of a failure. A status that a boundary does not know is [`Class::Permanent`], a word
/// that it does not know [`Class::Unrecognized`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// The failure may pass, so the stage is retried after a delay: timeouts, connection errors,
    /// 408, 425, 5xx.
    Transient {
        /// The provider's `Retry-After`, honoured to the second.
        retry_after: Option<Duration>,
    },
    /// The provider limits the rate of calls (429): as [`Class::Transient`], and its destination
    /// is held.
    RateLimited {
        /// The provider's `Retry-After`, honoured to the second; `None`: the governor chooses the
        /// length of the hold.
        retry_after: Option<Duration>,
    },
    /// A retry cannot help: the job is parked until a person looks.
    Permanent,
    /// The provider answered with a word that is not known here: the stage is retried a few times,
    /// then the job is parked.
    Unrecognized,
    /// Postgres or RabbitMQ is unavailable: this is not a failure of the job, and no attempt is
    /// used.
    Infrastructure,
    /// A compare-and-set was lost: the stage reads and decides again at once.
    Conflict,
    /// A named cause must go away first: the job waits, and no attempt is used.
    Wait(WaitOn),
    /// The stage ended early with partial results: a later run continues it, and no attempt is
    /// used.
    Unfinished,
}

/// The cause a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitOn {
    /// The reason, as people read it.
    pub reason: WaitReason,
    /// The name of the cause (`identity:7`, `integration:3`, `schema:2`), shared by all jobs that
    /// wait for it.
    pub key: String,
    /// The version of the cause that was read (of a row); the commit tests the cause again against
    /// it.
    pub observed: i64,
}

/// Whether the call of a failed stage may have changed the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The call was refused or never sent: it had no effect.
    NotDone,
    /// The call may have had its effect: the answer was lost, or it was an error that proves
    /// nothing.
    Unknown,
}

/// An error at a boundary.
pub trait Fault: Error + Send + Sync + 'static {
    /// Returns the stable code, lowercase and dotted: `azure_devops.rate_limited`. It is stored,
    /// counted, and never renamed.
    fn code(&self) -> &'static str;
    fn class(&self) -> Class;
    /// Returns what a person can do about it.
    fn hint(&self) -> String;
    /// Returns whether the outside may have changed.
    fn certainty(&self) -> Certainty {
        Certainty::NotDone
    }
    /// Returns whether the provider's rate limit applies to everything that is sent the same way
    /// (with the same credential, from the same address), and not to this destination alone.
    fn limits_all(&self) -> bool {
        false
    }
}

/// The error of a stage: any [`Fault`], boxed.
#[derive(Debug)]
pub struct StageFault(Box<dyn Fault>);

impl<F: Fault> From<F> for StageFault {
    fn from(fault: F) -> Self {
        Self(Box::new(fault))
    }
}

impl StageFault {
    /// See [`Fault::code`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code()
    }

    /// See [`Fault::class`].
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class()
    }

    /// See [`Fault::hint`].
    #[must_use]
    pub fn hint(&self) -> String {
        self.0.hint()
    }

    /// See [`Fault::certainty`].
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.0.certainty()
    }

    /// Returns the whole chain of causes on one line, truncated to 2 KiB.
    #[must_use]
    pub fn message(&self) -> String {
        chain(self.0.as_ref())
    }
}

/// Codes that more than one module names. They are stored, so they are never renamed.
pub mod codes {
    /// An operator holds the lane, the stage or the organization, or has paused all jobs.
    pub const HELD: &str = "operator.held";
    /// A kill switch matches the job.
    pub const KILL_SWITCH: &str = "operator.kill_switch";
    /// It is not known whether a call went through, and it may not be repeated.
    pub const UNKNOWN_OUTCOME: &str = "unknown_outcome";
    /// The job's deadline passed.
    pub const DEADLINE_EXCEEDED: &str = "deadline_exceeded";
    /// The job's owners died too often without a commit in between.
    pub const CRASH_LOOP: &str = "crash_loop";
}

/// What a person can do about [`codes::DEADLINE_EXCEEDED`].
pub const DEADLINE_HINT: &str =
    "Publish the job again with a later deadline, or retry it now by hand.";

/// The longest stored error message, in bytes.
pub const MESSAGE_BYTES: usize = 2048;

/// Returns an error and its causes on one line, `outer: inner`, truncated to [`MESSAGE_BYTES`]. A
/// cause that the error before it already quotes is omitted. NUL, which Postgres' `text` cannot
/// hold, becomes U+FFFD.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    storable(&line, MESSAGE_BYTES)
}

/// Returns `text` truncated to `limit` bytes at a character boundary, with NUL replaced by U+FFFD.
#[must_use]
pub fn storable(text: &str, limit: usize) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Returns the fingerprint that groups similar failures: SHA-256 (16 hex digits) over pipeline,
/// stage, code and the message, with words that contain digits replaced by `#`.
#[must_use]
pub fn fingerprint(pipeline: &str, stage: &str, code: &str, message: &str) -> String {
    let mut hash = Sha256::new();
    for part in [pipeline, stage, code, &normalised(message)] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize()[..8])
}

fn normalised(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for word in message.split(' ') {
        if !out.is_empty() {
            out.push(' ');
        }
        let has_digit = word.bytes().any(|b| b.is_ascii_digit());
        out.push_str(if has_digit { "#" } else { word });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_that_differ_in_numbers_share_a_fingerprint() {
        let one = fingerprint("dispatch", "retrieve_user", "x.y", "work item 17 is gone");
        let two = fingerprint("dispatch", "retrieve_user", "x.y", "work item 9 is gone");
        let other = fingerprint("dispatch", "retrieve_user", "x.z", "work item 9 is gone");
        assert_eq!(one, two);
        assert_ne!(one, other);
    }

    #[test]
    fn a_cause_that_the_message_quotes_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("no connection: {0}")]
        struct Quoting(#[source] std::io::Error);
        assert_eq!(
            chain(&Quoting(std::io::Error::other("refused"))),
            "no connection: refused"
        );
    }

    #[test]
    fn a_message_is_truncated_at_a_character_boundary_and_has_no_nul() {
        assert_eq!(storable("aé", 2), "a");
        assert_eq!(storable("a\0b", 10), "a\u{fffd}b");
    }
}
