//! Where else a job appears: its failure group, the campaigns that hold it, and its events that are
//! not published yet.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::error::StoreError;
use super::handle::Store;
use super::sql::{query, query_opt};
use crate::job::JobId;

/// How many campaigns are looked at, the newest.
const CAMPAIGNS: i64 = 50;
/// How many events are looked at, the newest.
const EVENTS: i64 = 2_000;
/// How many events of the job are shown.
const EVENT_ROWS: i64 = 50;

/// Where a job appears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct JobPlaces {
    /// The failure group of its last failure.
    pub group: Option<String>,
    /// The id of its trace, 32 hexadecimal digits.
    pub trace: Option<String>,
    /// Those of the newest 50 campaigns that hold it, newest first.
    pub campaigns: Vec<CampaignOfJob>,
}

/// A campaign that holds the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CampaignOfJob {
    /// Its number.
    pub campaign: i64,
    /// What it does.
    pub action: String,
    /// Its state.
    pub state: String,
    /// The state of the job's item.
    pub item: String,
    /// Why the item is refused, bad or unknown.
    pub why: Option<String>,
}

/// An event of the job that is not published yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UnpublishedEvent {
    /// Its number.
    pub id: i64,
    /// The event.
    pub event: Option<String>,
    /// Its routing key.
    pub routing_key: String,
    /// Whether only the reply is left.
    pub reply_only: bool,
    /// When it was stored.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: OffsetDateTime,
    /// From when on any replica may publish it.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub publish_after: OffsetDateTime,
    /// Publishes that the broker refused or did not confirm.
    pub tries: i32,
}

/// Events of a job among the newest ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UnpublishedEvents {
    /// Oldest first, at most 50.
    pub events: Vec<UnpublishedEvent>,
    /// Whether there are older events that were not looked at.
    pub is_partial: bool,
}

const PLACES: &str = "SELECT fingerprint, traceparent FROM jobs WHERE id = $1";

pub(super) const IN_CAMPAIGNS: &str = "
    SELECT c.id, c.action, c.state, i.state AS item, i.why
    FROM (SELECT id, action, state FROM campaigns ORDER BY id DESC LIMIT $2) c
        CROSS JOIN LATERAL (SELECT state, why FROM campaign_items WHERE campaign = c.id AND job_id = $1 LIMIT 1) i
    ORDER BY c.id DESC";

/// No index finds the events of a job: a row lives for a moment, and each would pay for it.
pub(super) const UNPUBLISHED: &str = "
    WITH newest AS MATERIALIZED (SELECT id, job_id FROM announcements ORDER BY id DESC LIMIT $2)
    SELECT looked.events AS looked, a.id, a.body ->> 'event' AS event, a.routing_key, a.reply_only, a.created_at, a.publish_after, a.tries
    FROM (SELECT count(*) AS events FROM newest) looked
        LEFT JOIN (SELECT id FROM newest WHERE job_id = $1 ORDER BY id LIMIT $3) own ON true
        LEFT JOIN LATERAL (SELECT id, body, routing_key, reply_only, created_at, publish_after, tries
            FROM announcements WHERE announcements.id = own.id LIMIT 1) a ON true
    ORDER BY a.id";

impl Store {
    /// Returns where a job appears; `None` if there is no such job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_places(&self, job: JobId) -> Result<Option<JobPlaces>, StoreError> {
        let client = self.client().await?;
        let Some(row) = query_opt(&client, PLACES, &[&job.0]).await? else {
            return Ok(None);
        };
        let traceparent: Option<String> = row.try_get("traceparent")?;
        let trace = traceparent.and_then(|text| text.split('-').nth(1).map(str::to_owned));
        let campaigns = query(&client, IN_CAMPAIGNS, &[&job.0, &CAMPAIGNS]).await?;
        let campaigns = campaigns.iter().map(|row| {
            Ok(CampaignOfJob {
                campaign: row.try_get("id")?,
                action: row.try_get("action")?,
                state: row.try_get("state")?,
                item: row.try_get("item")?,
                why: row.try_get("why")?,
            })
        });
        Ok(Some(JobPlaces {
            group: row.try_get("fingerprint")?,
            trace,
            campaigns: campaigns.collect::<Result<_, StoreError>>()?,
        }))
    }

    /// Returns the events of a job that are not published yet, among the newest 2,000 events of all
    /// jobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unpublished_events(&self, job: JobId) -> Result<UnpublishedEvents, StoreError> {
        let rows = query(
            &self.client().await?,
            UNPUBLISHED,
            &[&job.0, &EVENTS, &EVENT_ROWS],
        )
        .await?;
        let looked: i64 = match rows.first() {
            Some(row) => row.try_get("looked")?,
            None => 0,
        };
        let events = rows.iter().filter_map(|row| event(row).transpose());
        Ok(UnpublishedEvents {
            events: events.collect::<Result<_, _>>()?,
            is_partial: looked >= EVENTS,
        })
    }
}

fn event(row: &Row) -> Result<Option<UnpublishedEvent>, StoreError> {
    let Some(id) = row.try_get("id")? else {
        return Ok(None);
    };
    Ok(Some(UnpublishedEvent {
        id,
        event: row.try_get("event")?,
        routing_key: row.try_get("routing_key")?,
        reply_only: row.try_get("reply_only")?,
        created_at: row.try_get("created_at")?,
        publish_after: row.try_get("publish_after")?,
        tries: row.try_get("tries")?,
    }))
}
