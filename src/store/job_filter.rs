//! Which jobs a list or a count is about.

use std::str::FromStr;

use time::OffsetDateTime;

use crate::job::{JobId, JobState};

/// Most values of one condition: each may be an access path of its own.
const MOST_VALUES: usize = 10;
/// Most characters of a text; no name, key or code is longer.
const TEXT: usize = 255;
/// Most characters of a cause: it may have several names in it.
const CAUSE: usize = 1000;

/// Which jobs to list or to count: all conditions together. A job meets a condition that has
/// several values if it has one of them; an empty list is no condition.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// In one of these states.
    pub states: Vec<JobState>,
    /// Of one of these pipelines.
    pub pipelines: Vec<String>,
    /// Of one of these organizations.
    pub organizations: Vec<String>,
    /// Of one of these sources.
    pub sources: Vec<String>,
    /// Follow-ups of this parent.
    pub parent: Option<JobId>,
    /// With one of these error codes. Without a state, only jobs that are not done.
    pub error_codes: Vec<CodeFilter>,
    /// Of this failure group. Without a state, only jobs that are not done.
    pub fingerprint: Option<String>,
    /// With this dedupe key, of any source.
    pub dedupe_key: Option<String>,
    /// Owned by this replica.
    pub replica: Option<i64>,
    /// Waiting for this cause, see [`JobRow::wait_key`](super::JobRow::wait_key).
    pub cause: Option<String>,
    /// At one of these stages.
    pub stages: Vec<String>,
    /// Accepted at this time or later; a follow-up counts as accepted with its first parent.
    pub since: Option<OffsetDateTime>,
    /// That changed this work item, in any account, or a group that it is linked to.
    pub work_item: Option<i64>,
    /// Older than this job: the cursor of the page.
    pub before: Option<JobId>,
    /// At most this many.
    pub limit: i64,
}

/// A filter that no list is made for.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFilter {
    /// A condition has too many values.
    #[error("expected at most {MOST_VALUES} values of `{0}`, got {1}; ask for fewer at once")]
    TooMany(&'static str, usize),
    /// A text is longer than any that is stored.
    #[error("expected at most {1} characters of `{0}`, got {2}; no stored text is longer")]
    TooLong(&'static str, usize, usize),
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
    /// Returns the filter if it can be read along access paths.
    ///
    /// # Errors
    /// [`InvalidFilter`].
    pub fn checked(self) -> Result<Self, InvalidFilter> {
        let codes: Vec<String> = self.error_codes.iter().map(|code| code.range().0).collect();
        let lists: [(&'static str, &[String]); 5] = [
            ("pipeline", &self.pipelines),
            ("organization", &self.organizations),
            ("source", &self.sources),
            ("code", &codes),
            ("stage", &self.stages),
        ];
        for (name, values) in lists {
            if values.len() > MOST_VALUES {
                return Err(InvalidFilter::TooMany(name, values.len()));
            }
        }
        let listed = lists
            .into_iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, TEXT, value)));
        let single = [
            ("group", TEXT, &self.fingerprint),
            ("key", TEXT, &self.dedupe_key),
            ("cause", CAUSE, &self.cause),
        ];
        let single = single
            .into_iter()
            .filter_map(|(name, most, value)| Some((name, most, value.as_ref()?)));
        for (name, most, value) in listed.chain(single) {
            let length = value.chars().count();
            if length > most {
                return Err(InvalidFilter::TooLong(name, most, length));
            }
        }
        Ok(self)
    }

    /// Returns the number of conditions that an access path may answer, other than time and work
    /// item.
    pub(super) fn conditions(&self) -> usize {
        [
            !self.states.is_empty(),
            !self.pipelines.is_empty(),
            !self.organizations.is_empty(),
            !self.sources.is_empty(),
            self.parent.is_some(),
            !self.error_codes.is_empty(),
            self.fingerprint.is_some(),
            self.dedupe_key.is_some(),
            self.replica.is_some(),
            self.cause.is_some(),
            !self.stages.is_empty(),
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

    #[test]
    fn a_filter_has_a_limited_number_of_values_and_of_characters() {
        let of_codes = |number: usize| JobFilter {
            error_codes: vec![CodeFilter::Prefix("slack.".to_owned()); number],
            ..JobFilter::default()
        };
        assert!(of_codes(10).checked().is_ok());
        let error = of_codes(11).checked().unwrap_err().to_string();
        assert!(error.contains("10 values of `code`, got 11"), "{error}");
        let of_key = |length: usize| JobFilter {
            dedupe_key: Some("é".repeat(length)),
            ..JobFilter::default()
        };
        assert!(of_key(255).checked().is_ok());
        let error = of_key(300).checked().unwrap_err().to_string();
        assert!(
            error.contains("255 characters of `key`, got 300"),
            "{error}"
        );
    }
}
