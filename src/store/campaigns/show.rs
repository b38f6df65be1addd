//! Campaigns and their items as people read them.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

use super::super::count::CappedCount;
use super::super::error::StoreError;
use super::super::handle::Store;
use super::super::sql::{query, query_one, query_opt};
use super::wave::Wave;
use crate::job::JobId;

/// A campaign. The numbers of items add up to `total`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CampaignRow {
    /// Its id.
    pub id: i64,
    /// What is done to each job.
    pub action: String,
    /// The filter that its jobs matched.
    pub filter: Value,
    /// `planned`, `running`, `paused`, `aborted` or `finished`.
    pub state: String,
    /// Why it is paused or aborted.
    pub why: Option<String>,
    /// The person who started it.
    pub who: String,
    /// The reason.
    pub reason: String,
    /// Jobs a second after the first waves.
    pub per_second: i32,
    /// It pauses when more than this part of a wave fails again.
    pub stop_at_percent: i32,
    /// The number of duplicates that the person has accepted.
    pub duplicates_allowed: i32,
    /// Its items.
    pub total: i32,
    /// Items that nothing was done to yet.
    pub open: i32,
    /// Items that were acted on and have no verdict yet.
    pub acted: i32,
    /// Items whose job could not be acted on.
    pub refused: i32,
    /// Items whose stage is done, or whose job is.
    pub good: i32,
    /// Items whose job was parked again.
    pub bad: i32,
    /// Items without a result within a minute.
    pub unknown: i32,
    /// The wave, from 1; 0 before the first.
    pub wave: i32,
    /// The last item of the wave.
    pub wave_until: i32,
    /// The last waves with a verdict, at most ten.
    pub verdicts: Vec<Wave>,
    /// When it was started.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: OffsetDateTime,
    /// When its next step is due.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub next_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub finished_at: Option<OffsetDateTime>,
    /// Jobs of the same group that have failed since and are not included. Only for one campaign
    /// of a group.
    pub failed_since: Option<CappedCount>,
}

/// An item of a campaign.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CampaignItemRow {
    /// Its number, from 1.
    pub n: i32,
    /// Its job.
    #[schemars(with = "String")]
    pub job_id: JobId,
    /// `open`, `acted`, `refused`, `good`, `bad` or `unknown`.
    pub state: String,
    /// Why it is refused, bad or unknown.
    pub why: Option<String>,
    /// The job's stage when it was acted on.
    pub stage: Option<String>,
    /// When it was acted on.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub acted_at: Option<OffsetDateTime>,
}

macro_rules! campaign_columns {
    () => {
        "id, action, filter, fingerprint, state, why, who, reason, per_second, stop_at_percent, duplicates_allowed, total, next_n, refused,
        good, bad, unknown, wave, wave_until, verdicts, created_at, next_at, finished_at"
    };
}

pub(crate) const LIST: &str = concat!(
    "SELECT ",
    campaign_columns!(),
    " FROM campaigns WHERE id < $1 ORDER BY id DESC LIMIT $2"
);

const ONE: &str = concat!(
    "SELECT ",
    campaign_columns!(),
    " FROM campaigns WHERE id = $1"
);

pub(crate) const ITEMS: &str = "
    SELECT n, job_id, state, why, stage, acted_at FROM campaign_items
    WHERE campaign >= $1 AND campaign <= $1 AND n > $2 ORDER BY campaign, n LIMIT $3";

/// Of the newest jobs of the group, counts those that have failed since and are not included.
pub(crate) const SINCE: &str = "
    SELECT count(*) AS jobs FROM (
        SELECT id, greatest(first_failed_at, last_progress_at) AS failed_at FROM jobs
        WHERE state = 'parked' AND fingerprint >= $1 AND fingerprint <= $1 ORDER BY fingerprint DESC, id DESC LIMIT $2) parked
    WHERE failed_at > $3
        AND (SELECT true FROM campaign_items i WHERE i.campaign = $4 AND i.job_id = parked.id LIMIT 1) IS NULL";

impl Store {
    /// Returns campaigns, newest first, older than `before`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn campaigns(
        &self,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<CampaignRow>, StoreError> {
        let before = before.unwrap_or(i64::MAX);
        let rows = query(&self.client().await?, LIST, &[&before, &limit]).await?;
        rows.iter().map(campaign_row).collect()
    }

    /// Returns a campaign, with the number of jobs that have failed alike since.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn campaign(&self, id: i64) -> Result<Option<CampaignRow>, StoreError> {
        let client = self.client().await?;
        let Some(row) = query_opt(&client, ONE, &[&id]).await? else {
            return Ok(None);
        };
        let mut campaign = campaign_row(&row)?;
        if let Some(group) = row.try_get::<_, Option<String>>("fingerprint")? {
            let most = CappedCount::ROWS;
            let parameters: [&(dyn ToSql + Sync); 4] = [&group, &most, &campaign.created_at, &id];
            let row = query_one(&client, SINCE, &parameters).await?;
            campaign.failed_since = Some(CappedCount::of(row.try_get("jobs")?));
        }
        Ok(Some(campaign))
    }

    /// Returns items of a campaign after the number `after`, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn campaign_items(
        &self,
        id: i64,
        after: i32,
        limit: i64,
    ) -> Result<Vec<CampaignItemRow>, StoreError> {
        let rows = query(&self.client().await?, ITEMS, &[&id, &after, &limit]).await?;
        rows.iter().map(item_row).collect()
    }
}

fn campaign_row(row: &Row) -> Result<CampaignRow, StoreError> {
    let [total, next_n, refused, good, bad, unknown] =
        ["total", "next_n", "refused", "good", "bad", "unknown"]
            .map(|name| row.try_get::<_, i32>(name));
    let (total, past) = (total?, next_n? - 1);
    let (refused, good, bad, unknown) = (refused?, good?, bad?, unknown?);
    let (Json(filter), Json(verdicts)) = (row.try_get("filter")?, row.try_get("verdicts")?);
    Ok(CampaignRow {
        id: row.try_get("id")?,
        action: row.try_get("action")?,
        filter,
        state: row.try_get("state")?,
        why: row.try_get("why")?,
        who: row.try_get("who")?,
        reason: row.try_get("reason")?,
        per_second: row.try_get("per_second")?,
        stop_at_percent: row.try_get("stop_at_percent")?,
        duplicates_allowed: row.try_get("duplicates_allowed")?,
        total,
        open: total - past,
        acted: past - refused - good - bad - unknown,
        refused,
        good,
        bad,
        unknown,
        wave: row.try_get("wave")?,
        wave_until: row.try_get("wave_until")?,
        verdicts,
        created_at: row.try_get("created_at")?,
        next_at: row.try_get("next_at")?,
        finished_at: row.try_get("finished_at")?,
        failed_since: None,
    })
}

fn item_row(row: &Row) -> Result<CampaignItemRow, StoreError> {
    Ok(CampaignItemRow {
        n: row.try_get("n")?,
        job_id: JobId(row.try_get("job_id")?),
        state: row.try_get("state")?,
        why: row.try_get("why")?,
        stage: row.try_get("stage")?,
        acted_at: row.try_get("acted_at")?,
    })
}
