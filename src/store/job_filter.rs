//! Which jobs a list or a count is about.

use std::str::FromStr;

use time::OffsetDateTime;

use crate::job::{JobId, JobState};

/// Which jobs to list or to count: all conditions together.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<JobState>,
    /// Of this pipeline.
    pub pipeline: Option<String>,
    /// Of this organization.
    pub organization: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Follow-ups of this parent.
    pub parent: Option<JobId>,
    /// With this error code. Without a state, only jobs that are not done.
    pub error_code: Option<CodeFilter>,
    /// Of this failure group. Without a state, only jobs that are not done.
    pub fingerprint: Option<String>,
    /// With this dedupe key, of any source.
    pub dedupe_key: Option<String>,
    /// Owned by this replica.
    pub replica: Option<i64>,
    /// Waiting for this cause, see [`JobRow::wait_key`](super::JobRow::wait_key).
    pub cause: Option<String>,
    /// At this stage.
    pub stage: Option<String>,
    /// Accepted at this time or later; a follow-up counts as accepted with its first parent.
    pub since: Option<OffsetDateTime>,
    /// That changed this work item, in any account, or a group that it is linked to.
    pub work_item: Option<i64>,
    /// Older than this job: the cursor of the page.
    pub before: Option<JobId>,
    /// At most this many.
    pub limit: i64,
}

/// An error code, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeFilter {
    /// `slack.not_in_channel`.
    Code(String),
    /// `slack.*`: without the asterisk.
    Prefix(String),
}

/// A text that is neither an error code nor the beginning of one.
#[derive(Debug, thiserror::Error)]
#[error(
    "expected an error code, or its beginning and `*`, got `{0}`; use `slack.not_in_channel` or `slack.*`"
)]
pub struct InvalidCode(String);

impl FromStr for CodeFilter {
    type Err = InvalidCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let prefix = text.strip_suffix('*');
        let code = prefix.unwrap_or(text);
        let is_of_code =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_');
        if code.is_empty() || !code.chars().all(is_of_code) {
            return Err(InvalidCode(text.to_owned()));
        }
        let code = code.to_owned();
        Ok(if prefix.is_some() {
            Self::Prefix(code)
        } else {
            Self::Code(code)
        })
    }
}

impl CodeFilter {
    /// Returns the first and the last code in the order of bytes (`COLLATE "C"`). No code has a
    /// character behind `~`.
    pub(super) fn range(&self) -> (String, String) {
        match self {
            Self::Code(code) => (code.clone(), code.clone()),
            Self::Prefix(prefix) => (prefix.clone(), format!("{prefix}~")),
        }
    }
}

impl JobFilter {
    /// Returns the number of conditions that an access path may answer, other than time and work
    /// item.
    pub(super) fn conditions(&self) -> usize {
        [
            self.state.is_some(),
            self.pipeline.is_some(),
            self.organization.is_some(),
            self.source.is_some(),
            self.parent.is_some(),
            self.error_code.is_some(),
            self.fingerprint.is_some(),
            self.dedupe_key.is_some(),
            self.replica.is_some(),
            self.cause.is_some(),
            self.stage.is_some(),
        ]
        .into_iter()
        .filter(|is_set| *is_set)
        .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_exact_or_a_beginning_and_an_asterisk() {
        let range = |text: &str| text.parse::<CodeFilter>().unwrap().range();
        assert_eq!(
            range("slack.*"),
            ("slack.".to_owned(), "slack.~".to_owned())
        );
        assert_eq!(range("x_1"), ("x_1".to_owned(), "x_1".to_owned()));
        for wrong in ["", "*", "sl*ck", "Slack.x", "slack.**", "a b"] {
            assert!(wrong.parse::<CodeFilter>().is_err(), "{wrong}");
        }
    }
}
