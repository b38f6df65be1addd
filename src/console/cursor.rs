//! The cursors of lists. A cursor is the position of the last row of a page, with a digest of the
//! list that it belongs to: with another filter it would silently pass over rows.

use std::fmt::Display;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::call::Call;
use super::parameters::pairs;
use super::problem::Problem;

/// Parameters that name a part of a list, not the list.
const OF_PART: [&str; 3] = ["before", "after", "limit"];

impl Call {
    /// Returns the cursor of what follows a position in the list that this request asks for.
    pub(super) fn cursor(&self, position: impl Display) -> String {
        let position = position.to_string();
        let digest = digest(&self.list(), &position);
        format!("{position}.{digest}")
    }

    /// Returns the position of a cursor of the list that this request asks for.
    ///
    /// # Errors
    /// `invalid_filter` if it is no cursor, or one of another list.
    pub(super) fn position<T: FromStr>(&self, cursor: Option<&str>) -> Result<Option<T>, Problem> {
        let Some(cursor) = cursor else {
            return Ok(None);
        };
        let found = cursor
            .rsplit_once('.')
            .filter(|(position, found)| digest(&self.list(), position) == *found);
        let position = found.and_then(|(position, _)| position.parse().ok());
        position.map(Some).ok_or_else(|| {
            Problem::invalid_filter("expected the cursor of this list with the same filter, got another one")
                .hint("Start without a cursor: leave out `before` or `after`; then use the `next` of each page with the same filter.")
        })
    }

    /// Returns what makes this list the one that it is: its path and its filter, in one order.
    fn list(&self) -> Vec<(String, String)> {
        let mut parts = pairs(&self.query);
        parts.retain(|(name, _)| !OF_PART.contains(&name.as_str()));
        let path = self.path.iter();
        parts.extend(path.map(|(name, value)| (format!("/{name}"), value.clone())));
        parts.sort();
        parts.dedup();
        parts.insert(0, (String::new(), self.route.name.to_owned()));
        parts
    }
}

/// Returns a short digest, which finds mistakes; it keeps no secret.
fn digest(list: &[(String, String)], position: &str) -> String {
    let mut digest = Sha256::new();
    let texts = list.iter().flat_map(|(name, value)| [name.as_str(), value]);
    for text in texts.chain([position]) {
        digest.update(text.len().to_be_bytes());
        digest.update(text);
    }
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = digest.finalize().into();
    format!("{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}
