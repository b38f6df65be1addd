//! What the pages about everything are made of. Each panel is read only while somebody looks, at
//! most once in a few seconds for all readers, and one that fails hides no other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::changes::{self, Change};
use super::problem::Problem;
use super::recent_samples::RecentSamples;
use super::schema::OtherSchema;
use crate::pipelines;
use crate::store::{
    CappedCount, Charts, ControlList, DatabaseLoad, DeadLetterRow, EndedReplica, FailureGroup,
    FleetReplica, GroupFilter, GroupPage, Lanes, OpenJobs, PipelineLanes, Store, StoreError,
    StuckRow,
};

/// The longest read of a panel: that of a statement, and a wait for a connection.
const READ_WITHIN: Duration = Duration::from_secs(4);
/// How long a failed read is not repeated.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// Failure groups that are read: the last seen.
const GROUPS: i64 = 50;
/// Replicas that have ended, likewise.
const ENDED: i64 = 50;
/// Dead letters that are read: the newest open ones.
const LETTERS: i64 = 50;
/// The age up to which a replica's end is shown.
const A_DAY: time::Duration = time::Duration::DAY;
/// The time span of the charts, and of what has changed.
pub(super) const AN_HOUR: time::Duration = time::Duration::HOUR;

/// What a panel shows: its value, or why there is none.
#[derive(Debug)]
pub(super) struct Seen<T>(Result<Arc<T>, Problem>);

/// Open dead letters.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct OpenLetters {
    /// Their number.
    pub(super) count: CappedCount,
    /// The newest.
    pub(super) newest: Vec<DeadLetterRow>,
}

/// A panel that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct PanelError {
    /// The panel, by the name of its field.
    pub(super) panel: &'static str,
    /// What failed and what to do.
    pub(super) error: String,
}

/// One value, kept for a few seconds.
struct Panel<T> {
    keep_for: Duration,
    kept: Mutex<Option<(Instant, Seen<T>)>>,
}

/// Every panel. It keeps one value of each and the samples of an hour, so it is bounded.
pub(super) struct Panels {
    open: Panel<OpenJobs>,
    stuck: Panel<Vec<StuckRow>>,
    controls: Panel<ControlList>,
    fleet: Panel<Vec<FleetReplica>>,
    lanes: Panel<Lanes>,
    ended: Panel<Vec<EndedReplica>>,
    groups: Panel<Vec<FailureGroup>>,
    charts: Panel<Charts>,
    samples: RecentSamples,
    changes: Panel<Vec<Change>>,
    letters: Panel<OpenLetters>,
    database: Panel<DatabaseLoad>,
    schema: Panel<Option<OtherSchema>>,
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Seen<T> {
    /// Returns the value, if it could be read.
    pub(super) fn value(&self) -> Option<&T> {
        self.0.as_deref().ok()
    }

    /// Returns the value, or a sentence about why it could not be read.
    ///
    /// # Errors
    /// The sentence.
    pub(super) fn get(&self) -> Result<&T, String> {
        self.0.as_deref().map_err(sentence)
    }

    /// Returns the value for an answer that has nothing else.
    ///
    /// # Errors
    /// `postgres_away`, `too_slow`.
    pub(super) fn required(self) -> Result<Arc<T>, Problem> {
        self.0
    }

    /// Returns the error of a panel of this name.
    pub(super) fn error(&self, panel: &'static str) -> Option<PanelError> {
        let error = self.get().err()?;
        Some(PanelError { panel, error })
    }
}

impl<T: Serialize> Serialize for Seen<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<T> Panel<T> {
    fn kept_for(seconds: u64) -> Self {
        Self {
            keep_for: Duration::from_secs(seconds),
            kept: Mutex::new(None),
        }
    }

    /// Returns the kept value, or reads it. Readers that come meanwhile wait for the same read.
    async fn see(&self, read: impl Future<Output = Result<T, StoreError>>) -> Seen<T> {
        let mut kept = self.kept.lock().await;
        if let Some((at, seen)) = kept.as_ref() {
            let keep_for = match seen.0 {
                Ok(_) => self.keep_for,
                Err(_) => FAILED_FOR,
            };
            if at.elapsed() < keep_for {
                return seen.clone();
            }
        }
        let seen = Seen(match tokio::time::timeout(READ_WITHIN, read).await {
            Ok(Ok(value)) => Ok(Arc::new(value)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                let within = READ_WITHIN.as_secs();
                Err(
                    Problem::too_slow(format!("Postgres did not answer within {within} s"))
                        .after(5),
                )
            }
        });
        *kept = Some((Instant::now(), seen.clone()));
        seen
    }
}

fn sentence(problem: &Problem) -> String {
    let detail = problem.detail.trim_end_matches('.');
    format!("This could not be read: {detail}. {}", problem.hint)
}

impl Default for Panels {
    fn default() -> Self {
        Self {
            open: Panel::kept_for(2),
            stuck: Panel::kept_for(5),
            controls: Panel::kept_for(1),
            fleet: Panel::kept_for(2),
            lanes: Panel::kept_for(2),
            ended: Panel::kept_for(2),
            groups: Panel::kept_for(5),
            charts: Panel::kept_for(5),
            samples: RecentSamples::default(),
            changes: Panel::kept_for(5),
            letters: Panel::kept_for(2),
            database: Panel::kept_for(5),
            schema: Panel::kept_for(2),
        }
    }
}

impl Panels {
    /// Open jobs by state.
    pub(super) async fn open(&self, store: &Store) -> Seen<OpenJobs> {
        self.open.see(store.open_jobs(None)).await
    }

    /// Every stuck code.
    pub(super) async fn stuck(&self, store: &Store) -> Seen<Vec<StuckRow>> {
        let read = async { Ok(store.stuck(&pipeline_lanes()).await) };
        self.stuck.see(read).await
    }

    /// The controls in force.
    pub(super) async fn controls(&self, store: &Store) -> Seen<ControlList> {
        self.controls.see(store.controls("")).await
    }

    /// The running replicas.
    pub(super) async fn fleet(&self, store: &Store) -> Seen<Vec<FleetReplica>> {
        self.fleet.see(store.fleet()).await
    }

    /// The lanes, and the number of replicas that they need.
    pub(super) async fn lanes(&self, store: &Store) -> Seen<Lanes> {
        let read = async { store.lanes(&pipeline_lanes()).await };
        self.lanes.see(read).await
    }

    /// The replicas that have ended within a day.
    pub(super) async fn ended(&self, store: &Store) -> Seen<Vec<EndedReplica>> {
        let read = async {
            let since = store.now().await? - A_DAY;
            store.ended_replicas(since, ENDED).await
        };
        self.ended.see(read).await
    }

    /// The failure groups that were seen last.
    pub(super) async fn groups(&self, store: &Store) -> Seen<Vec<FailureGroup>> {
        let read = async {
            let page = GroupPage {
                after: None,
                limit: GROUPS,
            };
            let filter = GroupFilter::default();
            Ok(store.failure_groups(&filter, &page).await?.groups)
        };
        self.groups.see(read).await
    }

    /// The charts of the last hour.
    pub(super) async fn charts(&self, store: &Store) -> Seen<Charts> {
        self.charts.see(self.samples.charts(store)).await
    }

    /// What has changed within the last hour.
    pub(super) async fn changes(&self, store: &Store) -> Seen<Vec<Change>> {
        let read = async {
            let since = store.now().await? - AN_HOUR;
            changes::read(store, since).await
        };
        self.changes.see(read).await
    }

    /// Open dead letters.
    pub(super) async fn letters(&self, store: &Store) -> Seen<OpenLetters> {
        let read = async {
            let (_, count) = store.open_dead_letters(None, 1).await?;
            let newest = store.dead_letters(false, i64::MAX, LETTERS).await?;
            Ok(OpenLetters { count, newest })
        };
        self.letters.see(read).await
    }

    /// The database as a whole.
    pub(super) async fn database(&self, store: &Store) -> Seen<DatabaseLoad> {
        self.database.see(store.database_load()).await
    }

    /// The version of the schema, if it is not the one of this console.
    pub(super) async fn schema(&self, store: &Store) -> Seen<Option<OtherSchema>> {
        self.schema.see(OtherSchema::read(store)).await
    }
}

/// Reads the charts of a time span.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn charts(
    store: &Store,
    since: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<Charts, StoreError> {
    // A counter begins with the second sample, so one more step is read.
    let samples = store.samples(since - time::Duration::MINUTE).await?;
    Ok(Charts::of(&samples, since, until))
}

pub(super) fn pipeline_lanes() -> PipelineLanes {
    PipelineLanes::of(&pipelines::registry())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panel_is_read_once_while_it_is_kept_and_again_after_a_failure() {
        let panel: Panel<u32> = Panel::kept_for(3600);
        let failed = panel.see(async { Err(StoreError::ReadOnly) }).await;
        assert!(
            failed
                .error("open")
                .unwrap()
                .error
                .starts_with("This could not be read")
        );
        assert_eq!(serde_json::to_string(&failed).unwrap(), "null");
        let within = panel.see(async { panic!("it is not read again at once") });
        assert!(within.await.value().is_none());
        *panel.kept.lock().await = None;
        assert_eq!(panel.see(async { Ok(7) }).await.value(), Some(&7));
        assert_eq!(panel.see(async { Ok(8) }).await.value(), Some(&7));
    }
}
