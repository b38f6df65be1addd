//! Queries and forms.

use serde::Deserializer;
use serde::de::{DeserializeOwned, Error as _};
use time::OffsetDateTime;

use super::parameters;
use super::problem::Problem;

/// Most rows of a page.
pub(super) const MOST: i64 = 200;
/// Rows of a page if the query names no number.
pub(super) const USUAL: i64 = 50;

/// Parses a query string into its type. An unknown parameter is an error: a misspelt filter would
/// otherwise match everything.
///
/// # Errors
/// `invalid_filter`.
pub(super) fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    parameters::read(query).map_err(Problem::invalid_filter)
}

/// The parameter of every page that makes a browser load it again after so many seconds.
const REFRESH: &str = "refresh=";

/// Returns after how many seconds a page is to be loaded again, if its query asks for it.
pub(super) fn refresh(query: &str) -> Option<u64> {
    let asked = query.split('&').find_map(|pair| pair.strip_prefix(REFRESH));
    let seconds = asked?.parse().ok()?;
    (5..=3600).contains(&seconds).then_some(seconds)
}

/// Returns a query without the parameter of [`refresh`].
pub(super) fn without_refresh(query: &str) -> String {
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.starts_with(REFRESH))
        .collect();
    kept.join("&")
}

/// Parses the text of a form.
///
/// # Errors
/// What is wrong.
pub(super) fn form<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_urlencoded::from_bytes(text).map_err(|error| error.to_string())
}

/// Reads a time of a request. Years that only some time zones have cannot be given to Postgres.
///
/// # Errors
/// What is expected.
pub(super) fn when<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<OffsetDateTime>, D::Error> {
    let at = time::serde::rfc3339::option::deserialize(deserializer)?;
    match at {
        Some(at) if !(1..=9998).contains(&at.year()) => Err(D::Error::custom(
            "expected a year from 1 to 9998, got another one",
        )),
        at => Ok(at),
    }
}

/// Checks a number of rows.
///
/// # Errors
/// `invalid_filter`.
pub(super) fn limit(asked: Option<i64>) -> Result<i64, Problem> {
    limit_to(asked.unwrap_or(USUAL), MOST)
}

/// Checks a number of rows, at most `most`.
///
/// # Errors
/// `invalid_filter`.
pub(super) fn limit_to(asked: i64, most: i64) -> Result<i64, Problem> {
    if (1..=most).contains(&asked) {
        Ok(asked)
    } else {
        Err(Problem::invalid_filter(format!(
            "expected a limit from 1 to {most}, got {asked}"
        )))
    }
}

/// Returns the last row of a page that is full, so that there may be another one.
pub(super) fn last_of_full<T>(rows: &[T], limit: i64) -> Option<&T> {
    let is_full = i64::try_from(rows.len()).is_ok_and(|rows| rows >= limit);
    rows.last().filter(|_| is_full)
}
