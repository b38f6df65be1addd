//! What a campaign would be for, before it is started.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use super::super::count::CappedCount;
use super::super::error::StoreError;
use super::super::handle::Store;
use super::super::job_row::{reason_of, state_of};
use super::super::sql::query;
use super::not_started::NotStarted;
use super::select::CampaignFilter;
use crate::job::{JobId, JobState, WaitReason};

/// Jobs in a preview.
const SHOWN: usize = 10;

/// The jobs that a filter matches.
#[derive(Debug, Default)]
pub struct PreviewedJobs {
    /// Their number.
    pub count: CappedCount,
    /// Whether the access path has more jobs than the 10,000 that were read.
    pub is_partial: bool,
    /// The oldest, at most ten.
    pub sample: Vec<CampaignJob>,
    /// The first 10,000 by state.
    pub states: Vec<StateCount>,
    /// Organizations of the first 10,000, at most 100.
    pub organizations: Vec<String>,
    /// Effects of the first 10,000 that may already have happened.
    pub effects: Vec<UncertainEffects>,
}

/// A job in a preview.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CampaignJob {
    /// Its id.
    #[schemars(with = "String")]
    pub id: JobId,
    /// Its organization.
    pub organization: String,
    /// Its pipeline.
    pub pipeline: String,
    /// Its stage.
    pub stage: String,
    /// Its state.
    pub state: JobState,
    /// The code of its last failure.
    pub error_code: Option<String>,
    /// When it was accepted.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: OffsetDateTime,
}

/// A number of jobs in the same state.
#[derive(Debug)]
pub struct StateCount {
    /// The state.
    pub state: JobState,
    /// Why they wait.
    pub waits_for: Option<WaitReason>,
    /// Their number.
    pub jobs: i64,
}

/// Effects that may already have happened: in flight, of unknown outcome, or perhaps done by an
/// earlier attempt.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UncertainEffects {
    /// The class: `K1` (compare and set), `K2` (keyed) or `K3` (at least once).
    pub class: String,
    /// Jobs that have such effects.
    pub jobs: i64,
    /// The effects.
    pub effects: i64,
}

pub(crate) const SAMPLE: &str = "
    SELECT id, organization, pipeline, stage, state, error_code, created_at FROM jobs WHERE id = ANY ($1) ORDER BY id";

/// `OFFSET 0` keeps the planner from reading all effects instead of those of each job.
pub(crate) const EFFECTS: &str = "
    SELECT e.class, count(DISTINCT chosen.id) AS jobs, count(*) AS effects
    FROM unnest($1::uuid[]) AS chosen (id) CROSS JOIN LATERAL (
        SELECT class FROM effects WHERE job_id = chosen.id AND (state IN ('in_flight', 'unknown') OR maybe_done) OFFSET 0) e
    GROUP BY 1 ORDER BY 1";

impl Store {
    /// Returns the jobs that a filter matches, and with `with_effects` their effects that may
    /// already have happened.
    ///
    /// # Errors
    /// [`StoreError`]; the inner error is that of the filter.
    pub async fn preview_campaign(
        &self,
        filter: &CampaignFilter,
        with_effects: bool,
    ) -> Result<Result<PreviewedJobs, NotStarted>, StoreError> {
        let checked = match filter.check() {
            Ok(checked) => checked,
            Err(why) => return Ok(Err(why)),
        };
        let client = self.client().await?;
        let most = CappedCount::ROWS;
        let rows = query(&client, checked.way.choose, &checked.parameters(&most)).await?;
        let Some(row) = rows.first() else {
            return Ok(Ok(PreviewedJobs::default()));
        };
        let ids: Vec<Uuid> = row.try_get("ids")?;
        let is_partial = row.try_get::<_, i64>("looked")? == most;
        let found = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let count = CappedCount::among(found, !is_partial);
        let organizations = row.try_get("organizations")?;
        let states = rows.iter().filter_map(|row| counted(row).transpose());
        let states = states.collect::<Result<_, StoreError>>()?;
        let mut sample = Vec::new();
        for row in query(&client, SAMPLE, &[&&ids[..ids.len().min(SHOWN)]]).await? {
            sample.push(CampaignJob {
                id: JobId(row.try_get("id")?),
                organization: row.try_get("organization")?,
                pipeline: row.try_get("pipeline")?,
                stage: row.try_get("stage")?,
                state: state_of(&row)?,
                error_code: row.try_get("error_code")?,
                created_at: row.try_get("created_at")?,
            });
        }
        let effects = if with_effects {
            let rows = query(&client, EFFECTS, &[&ids]).await?;
            rows.iter().map(effects_row).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        Ok(Ok(PreviewedJobs {
            count,
            is_partial,
            sample,
            states,
            organizations,
            effects,
        }))
    }
}

/// Returns the state of a row; `None` for the row that says that there are no jobs.
fn counted(row: &Row) -> Result<Option<StateCount>, StoreError> {
    let Some(jobs) = row.try_get("jobs")? else {
        return Ok(None);
    };
    Ok(Some(StateCount {
        state: state_of(row)?,
        waits_for: reason_of(row)?,
        jobs,
    }))
}

fn effects_row(row: &Row) -> Result<UncertainEffects, StoreError> {
    Ok(UncertainEffects {
        class: row.try_get("class")?,
        jobs: row.try_get("jobs")?,
        effects: row.try_get("effects")?,
    })
}
