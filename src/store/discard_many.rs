//! Puts aside many dead letters that a filter chooses, a page of numbers at a time: each as [`Store::resolve`] does with one. What
//! was put aside does not match any more, so an action that died is repeated as it is.

use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;

use super::Store;
use super::actions::Actor;
use super::count::CappedCount;
use super::dead_letters::{DeadLetterRow, letter_columns, row_of};
use super::error::StoreError;
use super::sql::{query, query_one};

/// Letters that are looked at in one statement, and put aside in one transaction.
const PAGE: i64 = 2_000;
/// Letters that a preview shows.
const SAMPLE: usize = 10;

/// Which dead letters: all that are open, and have everything that is given here.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ManyLetters {
    /// Refused for this reason.
    pub code: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Sent by this user of RabbitMQ.
    pub producer: Option<String>,
    /// Kept at least so many seconds ago.
    pub older_than_seconds: Option<u64>,
    /// At most so many, oldest first.
    pub limit: Option<u32>,
}

/// A filter with the moment it is about: what comes later is not chosen.
#[derive(Debug)]
pub struct ChosenLetters {
    filter: ManyLetters,
    kept_by: OffsetDateTime,
    /// The newest letter then.
    last: i64,
}

/// What a filter chooses, for whoever has to agree. Its limit is left out of account.
#[derive(Debug, Serialize)]
pub struct LettersPreview {
    /// How many letters.
    pub count: CappedCount,
    /// Those that came first, at most ten.
    pub sample: Vec<DeadLetterRow>,
}

/// What was done to a page.
#[derive(Debug)]
pub struct DiscardedPage {
    /// The last number that was looked at; `None`: the action is done.
    pub next: Option<i64>,
    /// Letters that were put aside.
    pub letters: u64,
}

const NOW: &str = "
    SELECT now() - $1::bigint * interval '1 second' AS kept_by, coalesce((SELECT id FROM dead_letters ORDER BY id DESC LIMIT 1), 0) AS last";

/// The next open letters, and of those the ones that are chosen.
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

const SHOWN: &str = concat!("SELECT ", letter_columns!(), " FROM dead_letters WHERE id = ANY ($1) ORDER BY id");

/// A row for each letter in the audit log, as of one alone.
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
        SELECT $9, $10, 'dead_letter.discard',
            json_build_object('dead_letter_id', id, 'code', code, 'source', source, 'dedupe_key', dedupe_key),
            json_build_object('dead_letter_id', id, 'resolution', 'discarded'), $11
        FROM done
    )
    SELECT (SELECT id FROM looked ORDER BY id DESC LIMIT 1) AS last, (SELECT count(*) FROM done) AS letters"
);

impl ChosenLetters {
    /// At most how many are put aside.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        self.filter.limit
    }

    fn parameters<'a>(&'a self, after: &'a i64) -> Vec<&'a (dyn ToSql + Sync)> {
        let ManyLetters { code, source, producer, .. } = &self.filter;
        vec![after, &self.last, &PAGE, &self.kept_by, code, source, producer]
    }
}

impl Store {
    /// What a filter chooses from now on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn choose_letters(&self, filter: ManyLetters) -> Result<ChosenLetters, StoreError> {
        let age = filter.older_than_seconds.map_or(0, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
        let row = query_one(&self.client().await?, NOW, &[&age]).await?;
        Ok(ChosenLetters { filter, kept_by: row.try_get("kept_by")?, last: row.try_get("last")? })
    }

    /// How many letters are chosen, and some of them. It looks at pages until it has counted [`CappedCount::LIMIT`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn preview_letters(&self, chosen: &ChosenLetters) -> Result<LettersPreview, StoreError> {
        let (mut after, mut count, mut first) = (0, 0, Vec::<i64>::new());
        while count < CappedCount::ROWS {
            let row = query_one(&self.client().await?, LOOK, &chosen.parameters(&after)).await?;
            let ids: Vec<i64> = row.try_get("ids")?;
            count += i64::try_from(ids.len()).unwrap_or(i64::MAX);
            first.extend(ids.into_iter().take(SAMPLE - first.len()));
            let Some(last) = row.try_get("last")? else { break };
            after = last;
        }
        let rows = query(&self.client().await?, SHOWN, &[&first]).await?;
        Ok(LettersPreview { count: CappedCount::of(count), sample: rows.iter().map(row_of).collect::<Result<_, _>>()? })
    }

    /// Puts aside the chosen ones among the next open letters behind `after`, at most `at_most`, with an audit row each, in one
    /// transaction.
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
        let at_most = at_most.and_then(|most| i64::try_from(most).ok()).unwrap_or(PAGE);
        let mut parameters = chosen.parameters(&after);
        parameters.extend([&at_most as &(dyn ToSql + Sync), &actor.who, &actor.role, &actor.reason]);
        let row = query_one(&self.client().await?, DISCARD, &parameters).await?;
        let letters: i64 = row.try_get("letters")?;
        Ok(DiscardedPage { next: row.try_get("last")?, letters: u64::try_from(letters).unwrap_or(0) })
    }
}
