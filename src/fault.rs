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

/// The error of a stage: any [`Fault`], boxed, and the destination that was called.
#[derive(Debug)]
pub struct StageFault {
    fault: Box<dyn Fault>,
    destination: Option<String>,
}

impl<F: Fault> From<F> for StageFault {
    fn from(fault: F) -> Self {
        Self {
            fault: Box::new(fault),
            destination: None,
        }
    }
}

impl StageFault {
    /// See [`Fault::code`].
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.fault.code()
    }

    /// See [`Fault::class`].
    #[must_use]
    pub fn class(&self) -> Class {
        self.fault.class()
    }

    /// See [`Fault::hint`].
    #[must_use]
    pub fn hint(&self) -> String {
        self.fault.hint()
    }

    /// See [`Fault::certainty`].
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.fault.certainty()
    }

    /// Names the destination that was called, so that failures of different destinations are
    /// different groups. The name must not contain an id of the job.
    #[must_use]
    pub fn at(self, destination: impl Into<String>) -> Self {
        Self {
            destination: Some(destination.into()),
            ..self
        }
    }

    /// Returns the destination that was called, if the stage has named it.
    #[must_use]
    pub fn destination(&self) -> Option<&str> {
        self.destination.as_deref()
    }

    /// Returns the whole chain of causes on one line, truncated to 2 KiB.
    #[must_use]
    pub fn message(&self) -> String {
        chain(self.fault.as_ref())
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
    /// A person has parked the job.
    pub const PARKED_BY_PERSON: &str = "operator.parked";
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

/// What a failure is called, apart from its message.
#[derive(Debug, Clone, Copy)]
pub struct FailureKind<'a> {
    pub pipeline: &'a str,
    pub stage: &'a str,
    /// The stable error code.
    pub code: &'a str,
    /// The destination that was called, if known: see [`StageFault::at`].
    pub destination: Option<&'a str>,
}

/// Returns the fingerprint that groups similar failures: SHA-256 (16 hex digits) over pipeline,
/// stage, code, destination and the message without its variable parts. These are e-mail
/// addresses, URLs, GUIDs, quoted text, numbers and ids.
#[must_use]
pub fn fingerprint(kind: &FailureKind<'_>, message: &str) -> String {
    let mut hash = Sha256::new();
    let destination = kind.destination.unwrap_or_default();
    let message = normalised(message);
    for part in [kind.pipeline, kind.stage, kind.code, destination, &message] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize()[..8])
}

/// Replaces the variable parts of a message by `#`, and every space by one blank.
fn normalised(message: &str) -> String {
    let unquoted = without_quotations(message);
    let words: Vec<&str> = unquoted
        .split_whitespace()
        .map(|word| if is_variable(word) { "#" } else { word })
        .collect();
    words.join(" ")
}

/// Quotation marks, each with the mark that ends the quotation.
const QUOTES: [(char, char); 6] = [
    ('\'', '\''),
    ('"', '"'),
    ('`', '`'),
    ('“', '”'),
    ('‘', '’'),
    ('«', '»'),
];

/// Replaces each quotation by `#`. A mark within a word is an apostrophe. A quotation that does not
/// end, since the message was truncated, ends with the message.
fn without_quotations(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(mark) = rest.chars().next() {
        let behind = &rest[mark.len_utf8()..];
        let within_word = out.ends_with(char::is_alphanumeric);
        let closing = QUOTES.iter().find(|(opening, _)| *opening == mark);
        rest = match closing.filter(|_| !within_word) {
            Some((_, closing)) => {
                out.push('#');
                after_quotation(behind, *closing)
            }
            None => {
                out.push(mark);
                behind
            }
        };
    }
    out
}

/// Returns the text behind the first `closing` mark that is not an apostrophe within a word.
fn after_quotation(text: &str, closing: char) -> &str {
    for (at, mark) in text.match_indices(closing) {
        let behind = &text[at + mark.len()..];
        if !behind.starts_with(char::is_alphanumeric) {
            return behind;
        }
    }
    ""
}

/// Returns whether a word differs between failures of one kind: it has a digit, or is an e-mail
/// address, a URL, a quotation or a GUID without digits.
fn is_variable(word: &str) -> bool {
    word.chars().any(char::is_numeric)
        || word.contains(['@', '#'])
        || word.contains("://")
        || is_guid(word)
}

fn is_guid(word: &str) -> bool {
    let word = word.trim_matches(|mark: char| !mark.is_ascii_alphanumeric());
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let parts: Vec<&str> = word.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [8, 4, 4, 4, 12] && parts.into_iter().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: FailureKind<'_> = FailureKind {
        pipeline: "messaging",
        stage: "deliver_message",
        code: "x.y",
        destination: None,
    };

    #[test]
    fn failures_that_differ_in_their_variable_parts_share_a_fingerprint() {
        let same = [
            ["work item 17 is gone", "work item 9 is gone"],
            [
                "user ann@example.com is unknown",
                "user <bob@b.example> is unknown",
            ],
            ["no room `team one`: x", "no room `don't panic`: x"],
            ["no room 'Ann Lee', sorry", "no room 'O'Hara', sorry"],
            ["there is no \"a b\"", "there is no \"c\""],
            [
                "GET https://a.example/x failed",
                "GET http://b.example failed",
            ],
            [
                "id abcdefab-abcd-abcd-abcd-abcdefabcdef",
                "id 0195612e-9a00-7000-8000-000000000001",
            ],
            ["it said 'the end is cut", "it said 'th"],
            ["it  can't\nbe done 3", "it can't be done 4"],
        ];
        for [one, two] in same {
            let [one, two] = [one, two].map(|message| fingerprint(&KIND, message));
            assert_eq!(one, two);
        }
    }

    #[test]
    fn failures_of_another_code_destination_or_kind_have_another_fingerprint() {
        let other = FailureKind {
            code: "x.z",
            ..KIND
        };
        let elsewhere = FailureKind {
            destination: Some("destination:7"),
            ..KIND
        };
        let all = [
            fingerprint(&KIND, "it can't be read"),
            fingerprint(&KIND, "it can't be written"),
            fingerprint(&other, "it can't be read"),
            fingerprint(&elsewhere, "it can't be read"),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
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
