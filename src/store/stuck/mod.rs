//! Jobs that do not move, by named codes: how many there are, which one has stood longest, and
//! what to do. Every statement reads a bounded number of rows along an index, and each code is
//! read alone, so that one that fails hides no other.

mod codes;
mod predicates;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use futures_util::StreamExt;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::sql::query;
use crate::engine::{Product, Registry};
use crate::fault;
use crate::job::{JobId, WaitReason};

pub use codes::{StuckCode, UnknownCode};
pub(super) use predicates::{
    HELD, NO_CONSUMERS, NO_PROGRESS, NOT_WOKEN, OF_CODE, OWNER_DEAD, PARKED, RETRYING_LONG, WAITING,
};

/// The number of codes that are read at once, beside those that wait.
const AT_ONCE: usize = 2;
/// The number of jobs that a code shows.
const EXAMPLES: usize = 3;
/// Organizations with due jobs that are walked over for [`StuckCode::NotWoken`] where all codes are
/// read: a person waits for a page. Where that code alone is read, as for the alert, it is
/// [`ALL_PLACES`].
const PLACES: i64 = 1_000;
const ALL_PLACES: i64 = CappedCount::ROWS;

/// The jobs of one code.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StuckRow {
    /// The code.
    pub code: StuckCode,
    /// What it means.
    pub sentence: &'static str,
    /// Which jobs are counted, in words.
    pub predicate: &'static str,
    /// Jobs are counted after this time in the state of the predicate.
    pub after_seconds: u32,
    /// What to do: commands.
    pub next: &'static str,
    /// The operation behind the command, if it is an action of a person.
    pub operation: Option<&'static str>,
    /// Number of jobs; `None` if it could not be read.
    pub count: Option<CappedCount>,
    /// Since when the oldest of the counted jobs has stood.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub oldest: Option<OffsetDateTime>,
    /// Those that have stood longest.
    pub examples: Vec<StuckExample>,
    /// Why the code could not be read.
    pub error: Option<String>,
}

/// A job that is stuck.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StuckExample {
    /// The job.
    #[schemars(with = "String")]
    pub id: JobId,
    /// Its organization.
    pub organization: String,
    /// Since when it has stood.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub since: OffsetDateTime,
    /// The stage, the replica, the lane, the error code or the hold, as the code needs it.
    pub detail: Option<String>,
}

/// The pipelines with their lanes.
#[derive(Debug, Clone, Default)]
pub struct PipelineLanes {
    pub(super) pipelines: Vec<String>,
    pub(super) lanes: Vec<String>,
    /// The queue of each lane.
    pub(super) queues: Vec<String>,
}

impl PipelineLanes {
    /// Returns the pipelines and lanes of a registry.
    #[must_use]
    pub fn of<P: Product>(registry: &Registry<P>) -> Self {
        let mut of = Self::default();
        for pipeline in registry.iter() {
            of.pipelines.push(pipeline.name.to_owned());
            of.lanes.push(pipeline.lane.name.to_owned());
            of.queues.push(pipeline.lane.queue.to_owned());
        }
        of
    }
}

impl StuckRow {
    fn new(code: StuckCode) -> Self {
        let about = code.about();
        Self {
            code,
            sentence: about.sentence,
            predicate: about.predicate,
            after_seconds: about.after_seconds,
            next: about.next,
            operation: about.operation,
            count: None,
            oldest: None,
            examples: Vec::new(),
            error: None,
        }
    }

    fn failed(code: StuckCode, error: String) -> Self {
        Self {
            error: Some(error),
            ..Self::new(code)
        }
    }
}

impl Store {
    /// Returns a row for each code, in the order of [`StuckCode::ALL`]. A row that could not be
    /// read carries the error. Once there is no connection, the rest is not tried.
    pub async fn stuck(&self, lanes: &PipelineLanes) -> Vec<StuckRow> {
        let away = OnceLock::new();
        let failed = |code: StuckCode, error: &StoreError| {
            let why = fault::chain(error);
            if matches!(error, StoreError::Pool(_)) {
                away.get_or_init(|| why.clone());
            }
            StuckRow::failed(code, why)
        };
        let row = async |code: StuckCode| {
            if let Some(why) = away.get() {
                return StuckRow::failed(code, String::clone(why));
            }
            let read = self.read_code(code, lanes, PLACES).await;
            read.unwrap_or_else(|error| failed(code, &error))
        };
        let is_waiting = |code: &StuckCode| !reasons(*code).is_empty();
        let (waiting, others): (Vec<StuckCode>, Vec<StuckCode>) =
            StuckCode::ALL.iter().partition(|code| is_waiting(code));
        let (waited, mut rows) = tokio::join!(
            self.waiting(&waiting),
            stream::iter(others)
                .map(row)
                .buffered(AT_ONCE)
                .collect::<Vec<_>>()
        );
        rows.extend(waited.unwrap_or_else(|error| {
            let codes = waiting.iter();
            codes.map(|code| failed(*code, &error)).collect()
        }));
        rows.sort_by_key(|row| StuckCode::ALL.iter().position(|code| *code == row.code));
        rows
    }

    /// Returns the jobs of codes that wait, by one statement.
    async fn waiting(&self, codes: &[StuckCode]) -> Result<Vec<StuckRow>, StoreError> {
        let asked = codes.iter().flat_map(|code| {
            let after = f64::from(code.about().after_seconds);
            reasons(*code)
                .iter()
                .map(move |reason| (after, reason.word()))
        });
        let (after, words): (Vec<f64>, Vec<&str>) = asked.unzip();
        let parameters: [&(dyn ToSql + Sync); 3] = [&CappedCount::ROWS, &after, &words];
        let rows = query(&self.client().await?, WAITING, &parameters).await?;
        let mut waiting: Vec<StuckRow> = codes.iter().map(|code| StuckRow::new(*code)).collect();
        for row in &mut waiting {
            let mut counts = BTreeMap::new();
            let mut examples = Vec::new();
            for found in &rows {
                let reason: &str = found.try_get("reason")?;
                if reasons(row.code).iter().any(|one| one.word() == reason) {
                    counts.insert(reason, found.try_get::<_, i64>("jobs")?);
                    examples.push(example(found)?);
                }
            }
            examples.truncate(EXAMPLES);
            row.count = Some(CappedCount::of(counts.values().sum()));
            row.oldest = examples.first().map(|example| example.since);
            row.examples = examples;
        }
        Ok(waiting)
    }

    /// Returns the jobs of one code.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn stuck_code(
        &self,
        code: StuckCode,
        lanes: &PipelineLanes,
    ) -> Result<StuckRow, StoreError> {
        self.read_code(code, lanes, ALL_PLACES).await
    }

    async fn read_code(
        &self,
        code: StuckCode,
        lanes: &PipelineLanes,
        places: i64,
    ) -> Result<StuckRow, StoreError> {
        let after = f64::from(code.about().after_seconds);
        let (rows, after): (&(dyn ToSql + Sync), &(dyn ToSql + Sync)) =
            (&CappedCount::ROWS, &after);
        let found = match code {
            StuckCode::OwnerDead => self.found(OWNER_DEAD, &[rows, after]).await?,
            StuckCode::NoProgress => self.found(NO_PROGRESS, &[rows, after]).await?,
            StuckCode::RetryingLong => self.found(RETRYING_LONG, &[rows, after]).await?,
            StuckCode::Parked => self.found(PARKED, &[rows, after]).await?,
            StuckCode::UnknownOutcome => {
                self.found(OF_CODE, &[rows, after, &fault::codes::UNKNOWN_OUTCOME])
                    .await?
            }
            StuckCode::CrashLoop => {
                self.found(OF_CODE, &[rows, after, &fault::codes::CRASH_LOOP])
                    .await?
            }
            StuckCode::WaitingConfiguration
            | StuckCode::WaitingReauthentication
            | StuckCode::WaitingVersion => {
                let mut rows = self.waiting(&[code]).await?;
                return Ok(rows.pop().unwrap_or_else(|| StuckRow::new(code)));
            }
            StuckCode::Held => self.found(HELD, &[rows, after]).await?,
            StuckCode::NotWoken => self.found(NOT_WOKEN, &[rows, after, &places]).await?,
            StuckCode::NoConsumers => {
                let PipelineLanes {
                    pipelines, lanes, ..
                } = lanes;
                self.found(NO_CONSUMERS, &[rows, after, pipelines, lanes])
                    .await?
            }
        };
        let (count, examples) = found;
        Ok(StuckRow {
            count: Some(count),
            oldest: examples.first().map(|example| example.since),
            examples,
            ..StuckRow::new(code)
        })
    }

    /// Returns the number of jobs that a statement finds, and those that have stood longest.
    async fn found(
        &self,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(CappedCount, Vec<StuckExample>), StoreError> {
        let rows = query(&self.client().await?, statement, parameters).await?;
        let count = rows.first().map_or(Ok(0), |row| row.try_get("jobs"))?;
        let examples = rows.iter().map(example).collect::<Result<_, _>>()?;
        Ok((CappedCount::of(count), examples))
    }
}

fn example(row: &Row) -> Result<StuckExample, StoreError> {
    Ok(StuckExample {
        id: JobId(row.try_get::<_, Uuid>("id")?),
        organization: row.try_get("organization")?,
        since: row.try_get("since")?,
        detail: row.try_get("detail")?,
    })
}

/// Returns the reasons for which the jobs of a code wait.
const fn reasons(code: StuckCode) -> &'static [WaitReason] {
    match code {
        StuckCode::WaitingConfiguration => {
            &[WaitReason::Configuration, WaitReason::InstallationDisabled]
        }
        StuckCode::WaitingReauthentication => &[WaitReason::Reauthentication],
        StuckCode::WaitingVersion => &[WaitReason::Version],
        StuckCode::OwnerDead
        | StuckCode::NoProgress
        | StuckCode::RetryingLong
        | StuckCode::Parked
        | StuckCode::UnknownOutcome
        | StuckCode::Held
        | StuckCode::NotWoken
        | StuckCode::NoConsumers
        | StuckCode::CrashLoop => &[],
    }
}
