//! Why a campaign is not started.

/// Maximum number of campaigns that are not over.
pub(super) const MOST_OPEN: i64 = 20;

/// Why a campaign was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    /// The filter is not possible; the text says what to use instead.
    #[error("{0}")]
    Filter(String),
    /// A number or the reason is out of range.
    #[error("expected {what}, got {got}; use a value in this range")]
    OutOfRange {
        /// What was expected.
        what: &'static str,
        /// What was given.
        got: String,
    },
    /// No job matches.
    #[error(
        "expected a filter that matches jobs, got one that matches none; use `dispatch campaigns preview`"
    )]
    NoJobs,
    /// The effects of class `K3` that may happen twice are more than were accepted.
    #[error(
        "expected at least {at_least} duplicates to be accepted, got {accepted}: so many effects of class K3 may have happened \
         already; use --duplicates {at_least} to accept them"
    )]
    Duplicates {
        /// Effects that may happen twice.
        at_least: i64,
        /// The accepted number.
        accepted: i32,
    },
    /// Too many campaigns are not over.
    #[error(
        "expected fewer than {MOST_OPEN} open campaigns, got {0}; abort one or wait until one is finished"
    )]
    TooMany(i64),
}
