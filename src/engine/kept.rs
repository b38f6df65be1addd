//! What a run of a stage has fetched so far, in named pieces. The commit that ends the run without finishing the stage stores them
//! with the job, so that the next run does not fetch them again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use time::OffsetDateTime;

use super::pipeline::StageInfo;

/// All pieces of a stage together, in bytes of JSON. What does not fit is fetched again by the next run.
const BYTES: usize = 4 << 20;
/// Pieces of a stage, at most.
const PIECES: usize = 1024;

/// Whether a run should end at its next step: the worker drains, or the delivery has taken its time.
pub type ShouldEnd<'a> = &'a (dyn Fn() -> bool + Send + Sync);

/// The pieces of one stage of one job.
pub struct Kept<'a> {
    stage: &'static str,
    version: i32,
    should_end: ShouldEnd<'a>,
    pieces: Mutex<Pieces>,
}

#[derive(Default)]
struct Pieces {
    named: BTreeMap<String, Box<RawValue>>,
    bytes: usize,
    /// Since the stored ones were written; none where nothing was stored.
    age: Option<Duration>,
    /// This run has added some.
    is_new: bool,
}

/// As stored: `{stage, version, at, pieces}`.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    #[serde(borrow)]
    stage: std::borrow::Cow<'a, str>,
    version: i32,
    #[serde(with = "time::serde::timestamp")]
    at: OffsetDateTime,
    pieces: BTreeMap<String, Box<RawValue>>,
}

impl<'a> Kept<'a> {
    /// Those that an earlier run of this stage has stored, if `stored` is of this stage in this version.
    #[must_use]
    pub fn new(info: &StageInfo, stored: Option<&RawValue>, should_end: ShouldEnd<'a>) -> Self {
        let (stage, version) = (info.name, info.version);
        let stored = stored.and_then(|stored| serde_json::from_str::<Stored<'_>>(stored.get()).ok());
        let pieces = stored.filter(|stored| stored.stage == stage && stored.version == version).map(|stored| {
            let age = (OffsetDateTime::now_utc() - stored.at).try_into().unwrap_or_default();
            let bytes = stored.pieces.iter().map(|(name, value)| name.len() + value.get().len()).sum();
            Pieces { named: stored.pieces, bytes, age: Some(age), is_new: false }
        });
        Self { stage, version, should_end, pieces: Mutex::new(pieces.unwrap_or_default()) }
    }

    /// The stage.
    #[must_use]
    pub const fn stage(&self) -> &'static str {
        self.stage
    }

    /// A piece, where there is one of this shape.
    pub fn get<T: DeserializeOwned>(&self, piece: &str) -> Option<T> {
        serde_json::from_str(self.pieces().named.get(piece)?.get()).ok()
    }

    /// Keeps a piece in place of the one of the same name. One that does not fit is left out.
    pub fn put(&self, piece: &str, value: &impl Serialize) {
        let Ok(value) = to_raw_value(value) else { return };
        let mut pieces = self.pieces();
        let old = pieces.named.get(piece).map_or(0, |old| piece.len() + old.get().len());
        let bytes = pieces.bytes - old + piece.len() + value.get().len();
        if bytes > BYTES || (old == 0 && pieces.named.len() >= PIECES) {
            tracing::warn!(
                stage = self.stage,
                piece,
                bytes,
                "a partial result is too large to keep: a later run fetches it again"
            );
            return;
        }
        pieces.named.insert(piece.to_owned(), value);
        pieces.bytes = bytes;
        pieces.is_new = true;
    }

    /// Forgets every piece: what was decided on them is decided again.
    pub fn clear(&self) {
        *self.pieces() = Pieces::default();
    }

    /// Whether anything would be lost with this run.
    pub fn is_empty(&self) -> bool {
        self.pieces().named.is_empty()
    }

    /// How old the pieces are that an earlier run has stored; zero where this run has added to them.
    pub fn age(&self) -> Duration {
        let pieces = self.pieces();
        pieces.age.filter(|_| !pieces.is_new).unwrap_or_default()
    }

    /// Whether the run should end here and go on later: it has got further, and its time is up.
    pub fn should_end(&self) -> bool {
        self.pieces().is_new && (self.should_end)()
    }

    /// All pieces as they are stored; none where there are none.
    pub fn to_stored(&self) -> Option<Box<RawValue>> {
        let pieces = self.pieces();
        if pieces.named.is_empty() {
            return None;
        }
        let at = OffsetDateTime::now_utc();
        let at = pieces.age.filter(|_| !pieces.is_new).map_or(at, |age| at - age);
        let stored = Stored { stage: self.stage.into(), version: self.version, at, pieces: pieces.named.clone() };
        to_raw_value(&stored).ok()
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
        StageInfo { name, version, needs, retry, timeout, effect: None, aside: false }
    }

    fn kept<'a>(stage: &'static str, version: i32, stored: Option<&RawValue>, should_end: ShouldEnd<'a>) -> Kept<'a> {
        Kept::new(&info(stage, version), stored, should_end)
    }

    #[test]
    fn pieces_come_back_for_the_same_stage_in_the_same_version_only() {
        let first = kept("s", 1, None, &|| false);
        assert!(first.is_empty() && first.to_stored().is_none());
        first.put("page:0", &[1, 2]);
        first.put("page:0", &[1, 2, 3]);
        let stored = first.to_stored().unwrap();
        let again = kept("s", 1, Some(&stored), &|| false);
        assert_eq!(again.get::<Vec<i64>>("page:0"), Some(vec![1, 2, 3]));
        assert_eq!((again.get::<String>("page:0"), again.get::<i64>("page:1")), (None, None));
        for other in [kept("s", 2, Some(&stored), &|| false), kept("t", 1, Some(&stored), &|| false)] {
            assert!(other.is_empty());
        }
        assert!(kept("s", 1, Some(&RawValue::from_string("7".to_owned()).unwrap()), &|| false).is_empty());
    }

    #[test]
    fn a_run_ends_early_only_where_it_has_got_further() {
        let run = kept("s", 1, None, &|| true);
        assert!(!run.should_end());
        run.put("a", &1);
        assert!(run.should_end());
        let next = kept("s", 1, Some(&run.to_stored().unwrap()), &|| true);
        assert!(!next.should_end(), "what was stored before is no progress of this run");
    }

    #[test]
    fn what_is_not_added_to_keeps_its_age_and_what_is_cleared_is_gone() {
        let at = OffsetDateTime::now_utc() - time::Duration::HOUR;
        let pieces = BTreeMap::from([("a".to_owned(), to_raw_value(&1).unwrap())]);
        let stored = to_raw_value(&Stored { stage: "s".into(), version: 1, at, pieces }).unwrap();
        let run = kept("s", 1, Some(&stored), &|| false);
        assert!(run.age() >= Duration::from_secs(3600));
        let again = kept("s", 1, Some(&run.to_stored().unwrap()), &|| false);
        assert!(again.age() >= Duration::from_secs(3599), "{:?}", again.age());
        run.put("b", &2);
        assert_eq!(run.age(), Duration::ZERO);
        run.clear();
        assert!(run.is_empty() && run.to_stored().is_none());
    }

    #[test]
    fn a_piece_that_does_not_fit_is_left_out_and_the_others_stay() {
        let run = kept("s", 1, None, &|| false);
        run.put("a", &1);
        run.put("large", &"x".repeat(BYTES));
        assert_eq!((run.get::<i64>("a"), run.get::<String>("large")), (Some(1), None));
        run.put("half", &"x".repeat(BYTES / 2));
        run.put("half", &"y".repeat(BYTES / 2));
        assert!(run.get::<String>("half").unwrap().starts_with('y'), "what is replaced makes room");
    }
}
