//! What went wrong, as data: every boundary's error enum says what kind of failure it is, so that one table
//! ([`crate::engine::decide`]) decides what becomes of the job.

use std::error::Error;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::job::WaitReason;

/// What kind of failure this is. A status that a boundary does not know is [`Class::Permanent`], a word that it does not know
/// [`Class::Unrecognized`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Worth another try after a delay: timeouts, connection errors, 408, 425, 429, 5xx.
    Transient {
        /// The other side's own wish (`Retry-After`), honoured to the second.
        retry_after: Option<Duration>,
    },
    /// Trying again cannot help: the job is parked until a person looks.
    Permanent,
    /// The other side said something that is not known here: tried again a few times, then parked.
    Unrecognized,
    /// Postgres or RabbitMQ is ill: not the job's failure, no attempt is used.
    Infrastructure,
    /// Somebody else moved first (a compare-and-set lost): read again and decide again at once.
    Conflict,
    /// A named cause must go away first: no attempt is used.
    Wait(WaitOn),
    /// The stage ended early with what it has so far: it goes on in a later run, no attempt is used.
    Unfinished,
}

/// The cause a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitOn {
    /// Why, as people read it.
    pub reason: WaitReason,
    /// The cause by name (`identity:7`, `integration:3`, `schema:2`), shared by all jobs that wait for it.
    pub key: String,
    /// What was seen of the cause (a row's version); the commit tests the cause again against it.
    pub observed: i64,
}

/// Whether the call behind a failed stage can have changed the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// The call was refused or never sent: nothing happened.
    NotDone,
    /// It may have happened: the answer was lost, or it was an error that proves nothing.
    Unknown,
}

/// An error at a boundary.
pub trait Fault: Error + Send + Sync + 'static {
    /// Stable, lowercase, dotted: `azure_devops.rate_limited`. Stored, counted, never renamed.
    fn code(&self) -> &'static str;
    /// What kind of failure it is.
    fn class(&self) -> Class;
    /// What a person can do about it.
    fn hint(&self) -> String;
    /// Whether the outside may have changed.
    fn certainty(&self) -> Certainty {
        Certainty::NotDone
    }
    /// Whether the other side asks for patience with everything that is sent the same way (with the same credential, from the
    /// same address), and not with this destination alone.
    fn limits_all(&self) -> bool {
        false
    }
}

/// Any [`Fault`], boxed: what a stage fails with.
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

    /// The whole chain of causes on one line, cut to 2 KiB.
    #[must_use]
    pub fn message(&self) -> String {
        chain(self.0.as_ref())
    }
}

/// The longest message stored of an error, in bytes.
pub const MESSAGE_BYTES: usize = 2048;

/// An error and its causes on one line, `outer: inner`, cut to [`MESSAGE_BYTES`]; a cause that the one before has quoted already
/// is left out. NUL, which Postgres' `text` cannot hold,
/// becomes U+FFFD.
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

/// `text` cut to `limit` bytes at a character boundary, without NUL.
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

/// Groups alike failures: SHA-256 (16 hex digits) over pipeline, stage, code and the message with numbers and ids
/// replaced by `#`.
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
    fn a_cause_that_was_quoted_already_is_not_said_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("no connection: {0}")]
        struct Quoting(#[source] std::io::Error);
        assert_eq!(chain(&Quoting(std::io::Error::other("refused"))), "no connection: refused");
    }

    #[test]
    fn a_message_is_cut_at_a_character_and_holds_no_nul() {
        assert_eq!(storable("aé", 2), "a");
        assert_eq!(storable("a\0b", 10), "a\u{fffd}b");
    }
}
