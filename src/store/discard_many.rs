//! Discards the dead letters that match a filter, a page of ids at a time. Each letter is
//! discarded as by [`Store::resolve`]. A discarded letter no longer matches, so an interrupted
//! action is repeated unchanged.

use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;

use super::audit::{Action, Actor};
use super::count::CappedCount;
use super::dead_letters::{DeadLetterRow, letter_columns, row_of};
use super::error::StoreError;
use super::handle::Store;
use super::sql::{query, query_one};

/// Letters that one statement reads and one transaction discards.
const PAGE: i64 = 2_000;
/// Letters in a preview.
const SAMPLE: usize = 10;

/// A filter for open dead letters. A letter matches if it has every property that is given.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ManyLetters {
    /// Refused with this code.
    pub code: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Published by this user of RabbitMQ.
    pub producer: Option<String>,
    /// Stored at least this many seconds ago.
    pub older_than_seconds: Option<u64>,
    /// At most this many, oldest first.
    pub limit: Option<u32>,
}

/// A filter and the moment it was chosen at: letters stored later do not match.
#[derive(Debug)]
pub struct ChosenLetters {
    filter: ManyLetters,
    kept_by: OffsetDateTime,
    /// Id of the newest letter at that moment.
    last: i64,
}

/// The letters that a filter matches, for a person to confirm. Ignores the filter's limit.
#[derive(Debug, Serialize)]
pub struct LettersPreview {
    /// Number of letters.
    pub count: CappedCount,
    /// The oldest letters, at most ten.
    pub sample: Vec<DeadLetterRow>,
}

/// Result of discarding a page.
#[derive(Debug)]
pub struct DiscardedPage {
    /// The last id that was read; `None` if the action is done.
    pub next: Option<i64>,
    /// Letters that were discarded.
    pub letters: u64,
}

const NOW: &str = "
    SELECT now() - $1::bigint * interval '1 second' AS kept_by, coalesce((SELECT id FROM dead_letters ORDER BY id DESC LIMIT 1), 0) AS last";

/// Selects the next open letters, and those of them that match.
macro_rules! looked {
    () => {
        "WITH looked AS MATERIALIZED (
            SELECT id, code, source, producer, created_at FROM dead_letters
            WHERE resolved_at IS NULL AND id > $1 AND id <= $2 ORDER BY id LIMIT $3
        ), chosen AS MATERIALIZED (
            SELECT id FROM looked WHERE created_at <= $4 AND ($5::text IS NULL OR code = $5) AND ($6::text IS NULL OR source = $6)
                AND ($7::text IS NULL OR producer = $7)
        )"
    };
}

pub(super) const LOOK: &str = concat!(
    looked!(),
    "SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last, ARRAY(SELECT id FROM chosen ORDER BY id) AS ids"
);

const SHOWN: &str = concat!(
    "SELECT ",
    letter_columns!(),
    " FROM dead_letters WHERE id = ANY ($1) ORDER BY id"
);

/// Writes one audit row per letter, like [`Store::resolve`].
const DISCARD: &str = concat!(
    looked!(),
    ", locked AS MATERIALIZED (
        SELECT id FROM dead_letters WHERE id = ANY (ARRAY(SELECT id FROM chosen)) AND resolved_at IS NULL
        ORDER BY id LIMIT $8 FOR UPDATE
    ), done AS (
        UPDATE dead_letters SET resolved_at = now(), resolution = 'discarded', resolved_by = $9, resolved_reason = $11
        WHERE id = ANY (ARRAY(SELECT id FROM locked))
        RETURNING id, code, source, dedupe_key
    ), audited AS (
        INSERT INTO audit_log (who, role, action, before, after, reason)
        SELECT $9, $10, $12,
            json_build_object('dead_letter_id', id, 'code', code, 'source', source, 'dedupe_key', dedupe_key),
            json_build_object('dead_letter_id', id, 'resolution', 'discarded'), $11
        FROM done
    )
    SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM done) AS letters"
);

impl ChosenLetters {
    /// Returns the filter.
    #[must_use]
    pub const fn filter(&self) -> &ManyLetters {
        &self.filter
    }

    fn parameters<'a>(&'a self, after: &'a i64) -> Vec<&'a (dyn ToSql + Sync)> {
        let ManyLetters {
            code,
            source,
            producer,
            ..
        } = &self.filter;
        vec![
            after,
            &self.last,
            &PAGE,
            &self.kept_by,
            code,
            source,
            producer,
        ]
    }
}

impl Store {
    /// Fixes the moment that the filter applies to.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn choose_letters(&self, filter: ManyLetters) -> Result<ChosenLetters, StoreError> {
        let age = filter
            .older_than_seconds
            .map_or(0, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let row = query_one(&self.client().await?, NOW, &[&age]).await?;
        Ok(ChosenLetters {
            filter,
            kept_by: row.try_get("kept_by")?,
            last: row.try_get("last")?,
        })
    }

    /// Counts the matching letters and returns some of them. Reads pages until it has counted
    /// [`CappedCount::LIMIT`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn preview_letters(
        &self,
        chosen: &ChosenLetters,
    ) -> Result<LettersPreview, StoreError> {
        let (mut after, mut count, mut first) = (0, 0, Vec::<i64>::new());
        while count < CappedCount::ROWS {
            let row = query_one(&self.client().await?, LOOK, &chosen.parameters(&after)).await?;
            let ids: Vec<i64> = row.try_get("ids")?;
            count += i64::try_from(ids.len()).unwrap_or(i64::MAX);
            first.extend(ids.into_iter().take(SAMPLE - first.len()));
            let Some(last) = row.try_get("last")? else {
                break;
            };
            after = last;
        }
        let rows = query(&self.client().await?, SHOWN, &[&first]).await?;
        Ok(LettersPreview {
            count: CappedCount::of(count),
            sample: rows.iter().map(row_of).collect::<Result<_, _>>()?,
        })
    }

    /// Discards the matching letters among the next open ones after `after`, at most `at_most`,
    /// with one audit row each, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn discard_page(
        &self,
        chosen: &ChosenLetters,
        after: i64,
        at_most: Option<u64>,
        actor: &Actor,
    ) -> Result<DiscardedPage, StoreError> {
        let at_most = at_most
            .and_then(|most| i64::try_from(most).ok())
            .unwrap_or(PAGE);
        let action = Action::DiscardDeadLetter;
        actor.permit(action)?;
        let (role, word) = (actor.role.word(), action.word());
        let mut parameters = chosen.parameters(&after);
        parameters.extend([
            &at_most as &(dyn ToSql + Sync),
            &actor.who,
            &role,
            &actor.reason,
            &word,
        ]);
        let row = query_one(&self.client().await?, DISCARD, &parameters).await?;
        let letters: i64 = row.try_get("letters")?;
        Ok(DiscardedPage {
            next: row.try_get("last")?,
            letters: u64::try_from(letters).unwrap_or(0),
        })
    }
}
