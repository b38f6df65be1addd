//! Lists of dead letters for people, newest first. A list by code reads an index; a list by source
//! reads a window of ids and then tests their rows, because no index has the source.

use schemars::JsonSchema;
use serde::Serialize;

use super::dead_letters::{DeadLetterRow, letter_columns, row_of};
use super::error::StoreError;
use super::handle::Store;
use super::sql::query;

/// Letters in a window.
const WINDOW: i64 = 5_000;

/// Which dead letters to list. A letter is listed if it has every property that is given.
#[derive(Debug, Clone)]
pub struct LetterFilter {
    /// Whether resolved ones are listed too.
    pub resolved_too: bool,
    /// Refused with this code.
    pub code: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Only older ones than this number.
    pub before: i64,
    /// At most this many.
    pub limit: i64,
}

/// A page of dead letters.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ListedLetters {
    /// The letters, newest first.
    pub letters: Vec<DeadLetterRow>,
    /// The cursor of the next page: its `before`; `None` if this is the last one.
    pub next: Option<i64>,
    /// How many letters were read before reading stopped, although there are older ones and the
    /// page is not full.
    pub looked: Option<i64>,
}

/// Range and order use the columns of the index on `code`.
pub(super) const OPEN_OF_CODE: &str = concat!(
    "SELECT ",
    letter_columns!(),
    " FROM dead_letters WHERE resolved_at IS NULL AND code >= $3 AND code <= $3 AND id < $1 ORDER BY code DESC, id DESC LIMIT $2"
);
pub(super) const OPEN_IDS: &str = "
    SELECT id FROM dead_letters WHERE resolved_at IS NULL AND id < $1 ORDER BY id DESC LIMIT $2";
pub(super) const IDS: &str = "SELECT id FROM dead_letters WHERE id < $1 ORDER BY id DESC LIMIT $2";
/// Selects from the letters with the ids `$1`. The array is a subquery, since a planner that knows
/// its length might prefer to read the whole table.
pub(super) const AMONG: &str = concat!(
    "SELECT ",
    letter_columns!(),
    " FROM dead_letters WHERE id = ANY (ARRAY(SELECT unnest($1::bigint[])))
        AND ($2::text IS NULL OR code || '' = $2) AND ($3::text IS NULL OR source = $3) ORDER BY id DESC LIMIT $4"
);

impl Store {
    /// Returns a page of dead letters.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_letters(&self, filter: &LetterFilter) -> Result<ListedLetters, StoreError> {
        let (before, limit) = (filter.before, filter.limit);
        let letters = match (&filter.code, &filter.source, filter.resolved_too) {
            (None, None, resolved_too) => self.dead_letters(resolved_too, before, limit).await?,
            (Some(code), None, false) => {
                let client = self.client().await?;
                let rows = query(&client, OPEN_OF_CODE, &[&before, &limit, code]).await?;
                rows.iter().map(row_of).collect::<Result<_, _>>()?
            }
            _ => return self.letters_in_window(filter).await,
        };
        Ok(ListedLetters {
            next: full_page_s_last(&letters, limit),
            letters,
            looked: None,
        })
    }

    async fn letters_in_window(&self, filter: &LetterFilter) -> Result<ListedLetters, StoreError> {
        let client = self.client().await?;
        let window = if filter.resolved_too { IDS } else { OPEN_IDS };
        let rows = query(&client, window, &[&filter.before, &WINDOW]).await?;
        let ids: Vec<i64> = rows
            .iter()
            .map(|row| row.try_get("id"))
            .collect::<Result<_, _>>()?;
        let LetterFilter {
            code,
            source,
            limit,
            ..
        } = filter;
        let rows = query(&client, AMONG, &[&ids, code, source, limit]).await?;
        let letters: Vec<DeadLetterRow> = rows.iter().map(row_of).collect::<Result<_, _>>()?;
        let looked = i64::try_from(ids.len()).unwrap_or(WINDOW);
        let page_end = full_page_s_last(&letters, *limit);
        let window_end = ids.last().copied().filter(|_| looked == WINDOW);
        Ok(ListedLetters {
            next: page_end.or(window_end),
            letters,
            looked: (page_end.is_none() && window_end.is_some()).then_some(looked),
        })
    }
}

/// Returns the number of the last letter of a full page.
fn full_page_s_last(letters: &[DeadLetterRow], limit: i64) -> Option<i64> {
    let is_full = i64::try_from(letters.len()).is_ok_and(|letters| letters >= limit);
    letters.last().map(|last| last.id).filter(|_| is_full)
}
