//! The partial results of a stage, in named pieces: what a run has read, and what it has already
//! done. The commit that ends a run without finishing the stage stores them with the job, so that
//! the next run neither reads nor does them again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use time::OffsetDateTime;

use super::pipeline::StageInfo;
use crate::job::Generation;

/// The most bytes of JSON in all pieces of a stage. The next run fetches again what does not fit.
const BYTES: usize = 4 << 20;
/// The most pieces of a stage.
const PIECES: usize = 1024;

/// Returns whether a run should end before its next call: the worker drains, or the delivery has
/// reached its time limit.
pub type ShouldEnd<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// The partial results that an earlier run stored, see [`Kept::to_stored`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Partial<'a> {
    /// The pieces as JSON; `None` if nothing was stored.
    pub json: Option<&'a RawValue>,
    /// Whether a person has retried the job since: then everything that was read is read again.
    pub read_again: bool,
}

/// The pieces of one stage of one job.
pub struct Kept<'a> {
    stage: &'static str,
    version: i32,
    generation: Generation,
    should_end: ShouldEnd<'a>,
    pieces: Mutex<Pieces>,
}

#[derive(Default)]
struct Pieces {
    named: BTreeMap<String, Piece>,
    bytes: usize,
    /// Whether this run has added some.
    is_new: bool,
}

#[derive(Clone, Serialize, Deserialize)]
struct Piece {
    #[serde(with = "time::serde::timestamp")]
    at: OffsetDateTime,
    /// Whether the piece records what was done, not what was read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    done: bool,
    value: Box<RawValue>,
}

/// The stored form: `{stage, version, generation, pieces}`.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    stage: Cow<'a, str>,
    version: i32,
    generation: i32,
    pieces: Cow<'a, BTreeMap<String, Piece>>,
}

impl<'a> Kept<'a> {
    /// Loads the pieces that an earlier run stored, if it was of this stage in this version and
    /// generation.
    #[must_use]
    pub fn new(
        info: &StageInfo,
        generation: Generation,
        partial: Partial<'_>,
        should_end: ShouldEnd<'a>,
    ) -> Self {
        let (stage, version) = (info.name, info.version);
        let stored = partial
            .json
            .and_then(|json| serde_json::from_str::<Stored<'_>>(json.get()).ok());
        let is_own = |stored: &Stored<'_>| {
            (&*stored.stage, stored.version, stored.generation) == (stage, version, generation.0)
        };
        let mut named = stored
            .filter(is_own)
            .map(|stored| stored.pieces.into_owned())
            .unwrap_or_default();
        named.retain(|_, piece| piece.done || !partial.read_again);
        let bytes = named
            .iter()
            .map(|(name, piece)| name.len() + piece.value.get().len())
            .sum();
        Self {
            stage,
            version,
            generation,
            should_end,
            pieces: Mutex::new(Pieces {
                named,
                bytes,
                is_new: false,
            }),
        }
    }

    #[must_use]
    pub const fn stage(&self) -> &'static str {
        self.stage
    }

    /// Returns a piece, if there is one of this shape.
    pub fn get<T: DeserializeOwned>(&self, piece: &str) -> Option<T> {
        serde_json::from_str(self.pieces().named.get(piece)?.value.get()).ok()
    }

    /// Returns a piece as [`Kept::get`] does, unless it is older than `limit`.
    pub fn younger<T: DeserializeOwned>(&self, piece: &str, limit: Duration) -> Option<T> {
        let pieces = self.pieces();
        let known = pieces
            .named
            .get(piece)
            .filter(|known| OffsetDateTime::now_utc() - known.at < limit)?;
        serde_json::from_str(known.value.get()).ok()
    }

    /// Keeps something that was read, in place of the piece of the same name. A piece that does
    /// not fit is not kept.
    pub fn put(&self, piece: &str, value: &impl Serialize) {
        self.add(piece, value, false);
    }

    /// Keeps a record of something that was done, as [`Kept::put`] does. It is not done again,
    /// even when a person retries the job.
    pub fn put_done(&self, piece: &str, value: &impl Serialize) {
        self.add(piece, value, true);
    }

    fn add(&self, piece: &str, value: &impl Serialize, done: bool) {
        let Ok(value) = to_raw_value(value) else {
            return;
        };
        let mut pieces = self.pieces();
        let old = pieces
            .named
            .get(piece)
            .map_or(0, |old| piece.len() + old.value.get().len());
        let bytes = pieces.bytes - old + piece.len() + value.get().len();
        if bytes > BYTES || (old == 0 && pieces.named.len() >= PIECES) {
            tracing::warn!(
                stage = self.stage,
                piece,
                bytes,
                "a partial result is too large to keep; a later run fetches it again"
            );
            return;
        }
        pieces.named.insert(
            piece.to_owned(),
            Piece {
                at: OffsetDateTime::now_utc(),
                done,
                value,
            },
        );
        pieces.bytes = bytes;
        pieces.is_new = true;
    }

    /// Deletes every piece: everything that was decided from them is decided again.
    pub fn clear(&self) {
        *self.pieces() = Pieces::default();
    }

    pub fn is_empty(&self) -> bool {
        self.pieces().named.is_empty()
    }

    /// Returns whether the run should end here and continue later: it has made progress, and
    /// [`ShouldEnd`] returns `true`.
    pub fn should_end(&self) -> bool {
        self.pieces().is_new && (self.should_end)()
    }

    /// Returns all pieces in their stored form; `None` if there are none.
    pub fn to_stored(&self) -> Option<Box<RawValue>> {
        let pieces = self.pieces();
        if pieces.named.is_empty() {
            return None;
        }
        let (stage, version, generation) = (self.stage.into(), self.version, self.generation.0);
        to_raw_value(&Stored {
            stage,
            version,
            generation,
            pieces: Cow::Borrowed(&pieces.named),
        })
        .ok()
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::RetryPolicy;

    fn info(name: &'static str, version: i32) -> StageInfo {
        let (needs, retry, timeout) = (&[][..], RetryPolicy::DEFAULT, Duration::from_secs(1));
        StageInfo {
            name,
            version,
            needs,
            retry,
            timeout,
            effect: None,
            off_path: false,
        }
    }

    fn kept<'a>(
        stage: &'static str,
        version: i32,
        stored: Option<&RawValue>,
        should_end: ShouldEnd<'a>,
    ) -> Kept<'a> {
        Kept::new(
            &info(stage, version),
            Generation(1),
            Partial {
                json: stored,
                read_again: false,
            },
            should_end,
        )
    }

    #[test]
    fn pieces_come_back_for_the_same_stage_in_the_same_version_and_generation_only() {
        let first = kept("s", 1, None, &|| false);
        assert!(first.is_empty() && first.to_stored().is_none());
        first.put("page:0", &[1, 2]);
        first.put("page:0", &[1, 2, 3]);
        let stored = first.to_stored().unwrap();
        let again = kept("s", 1, Some(&stored), &|| false);
        assert_eq!(again.get::<Vec<i64>>("page:0"), Some(vec![1, 2, 3]));
        assert_eq!(
            (again.get::<String>("page:0"), again.get::<i64>("page:1")),
            (None, None)
        );
        let partial = Partial {
            json: Some(&stored),
            read_again: false,
        };
        let other_generation = Kept::new(&info("s", 1), Generation(2), partial, &|| false);
        let others = [
            kept("s", 2, Some(&stored), &|| false),
            kept("t", 1, Some(&stored), &|| false),
            other_generation,
        ];
        assert!(others.iter().all(Kept::is_empty));
        assert!(
            kept(
                "s",
                1,
                Some(&RawValue::from_string("7".to_owned()).unwrap()),
                &|| false
            )
            .is_empty()
        );
    }

    #[test]
    fn a_manual_retry_reads_again_and_does_not_repeat_what_was_done() {
        let run = kept("s", 1, None, &|| false);
        run.put("page", &1);
        run.put_done("delivered", &["a"]);
        let stored = run.to_stored().unwrap();
        let partial = Partial {
            json: Some(&stored),
            read_again: true,
        };
        let again = Kept::new(&info("s", 1), Generation(1), partial, &|| false);
        assert_eq!(
            (
                again.get::<i64>("page"),
                again.get::<Vec<String>>("delivered")
            ),
            (None, Some(vec!["a".to_owned()]))
        );
    }

    #[test]
    fn a_run_ends_early_only_where_it_has_got_further() {
        let run = kept("s", 1, None, &|| true);
        assert!(!run.should_end());
        run.put("a", &1);
        assert!(run.should_end());
        let next = kept("s", 1, Some(&run.to_stored().unwrap()), &|| true);
        assert!(
            !next.should_end(),
            "pieces stored before are not progress of this run"
        );
    }

    #[test]
    fn each_piece_has_its_own_age_and_what_is_cleared_is_gone() {
        let at = OffsetDateTime::now_utc() - time::Duration::HOUR;
        let piece = Piece {
            at,
            done: false,
            value: to_raw_value(&1).unwrap(),
        };
        let pieces = Cow::Owned(BTreeMap::from([("a".to_owned(), piece)]));
        let stored = to_raw_value(&Stored {
            stage: "s".into(),
            version: 1,
            generation: 1,
            pieces,
        })
        .unwrap();
        let run = kept("s", 1, Some(&stored), &|| false);
        run.put("b", &2);
        let again = kept("s", 1, Some(&run.to_stored().unwrap()), &|| false);
        let (less, more) = (Duration::from_secs(3000), Duration::from_secs(4000));
        assert_eq!(
            (
                again.younger::<i64>("a", less),
                again.younger::<i64>("a", more)
            ),
            (None, Some(1))
        );
        assert_eq!(again.younger::<i64>("b", less), Some(2));
        run.clear();
        assert!(run.is_empty() && run.to_stored().is_none());
    }

    #[test]
    fn a_piece_that_does_not_fit_is_left_out_and_the_others_stay() {
        let run = kept("s", 1, None, &|| false);
        run.put("a", &1);
        run.put("large", &"x".repeat(BYTES));
        assert_eq!(
            (run.get::<i64>("a"), run.get::<String>("large")),
            (Some(1), None)
        );
        run.put("half", &"x".repeat(BYTES / 2));
        run.put("half", &"y".repeat(BYTES / 2));
        assert!(
            run.get::<String>("half").unwrap().starts_with('y'),
            "a replaced piece makes room"
        );
    }
}
