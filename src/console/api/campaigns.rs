//! Campaigns: an action on many jobs, in waves.

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::jobs::Reason;
use crate::console::answer;
use crate::console::call::{ActFault, Call, Changed};
use crate::console::pages;
use crate::console::problem::Problem;
use crate::console::query;
use crate::console::routes::{Route, acts, reads};
use crate::job::{JobId, JobState};
use crate::operations::{self, CampaignPreview};
use crate::store::{
    BulkAction, CampaignFilter, CampaignItemRow, CampaignResult, CampaignRow, NewCampaign, Since,
    Started,
};

pub(in crate::console) const ROUTES: &[Route] = &[
    reads!("list_campaigns", "/campaigns", "Lists campaigns, the newest first", [
        "before": "the cursor of the page: `next` of the page before", "limit": "rows, 1 to 200"
    ], CampaignList, list, pages::campaigns::list),
    reads!("preview_campaign", "/campaigns/preview", "Returns what a campaign would do; changes nothing", [
        "action": "retry, cancel or park", "group": "parked jobs of this failure group", "code": "open jobs with this error code, or its beginning and `*`",
        "cause": "jobs that wait for this cause", "state": "parked or waiting", "organization": "of this organization",
        "pipeline": "of this pipeline", "source": "of this source", "since": "accepted within this time (30m, 2h, 3d), or at this time or later (RFC 3339)"
    ], CampaignPreview, preview, pages::campaigns::preview),
    reads!(
        "show_campaign",
        "/campaigns/{number}",
        "Returns a campaign",
        [],
        CampaignRow,
        show,
        pages::campaigns::show
    ),
    reads!("campaign_items", "/campaigns/{number}/items", "Lists the jobs of a campaign with what became of them", [
        "after": "the cursor of the page: `next` of the page before", "limit": "rows, 1 to 200"
    ], CampaignItems, items),
    acts!("start_campaign", "/campaigns", "Starts a campaign on the jobs that match now", StartCampaign, false, New => StartedCampaign, start, |_, started| format!("/campaigns/{}", started.campaign)),
    acts!("pause_campaign", "/campaigns/{number}/pause", "Pauses a campaign", PauseCampaign, false, Reason => Changed, pause, to_campaign),
    acts!("resume_campaign", "/campaigns/{number}/resume", "Resumes a campaign", ResumeCampaign, false, Reason => Changed, resume, to_campaign),
    acts!("abort_campaign", "/campaigns/{number}/abort", "Ends a campaign; what was done stays", AbortCampaign, false, Reason => Changed, abort, to_campaign),
];

fn to_campaign(call: &Call, _: &Changed) -> String {
    format!("/campaigns/{}", call.path["number"])
}

/// Which jobs a campaign acts on.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::console) struct CampaignQuery {
    pub(in crate::console) action: Option<String>,
    pub(in crate::console) group: Option<String>,
    pub(in crate::console) code: Option<String>,
    pub(in crate::console) cause: Option<String>,
    pub(in crate::console) state: Option<JobState>,
    pub(in crate::console) organization: Option<String>,
    pub(in crate::console) pipeline: Option<String>,
    pub(in crate::console) source: Option<String>,
    since: Option<Since>,
}

/// A page of campaigns.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct CampaignList {
    /// Newest first.
    pub(in crate::console) campaigns: Vec<CampaignRow>,
    /// The cursor of the next page: its `before`; `None` if this is the last one.
    pub(in crate::console) next: Option<String>,
}

/// A page of a campaign's items.
#[derive(Serialize, JsonSchema)]
pub(in crate::console) struct CampaignItems {
    /// In the order of their numbers.
    pub(in crate::console) items: Vec<CampaignItemRow>,
    /// The cursor of the next page: its `after`; `None` if this is the last one.
    pub(in crate::console) next: Option<String>,
}

/// A campaign to start.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct New {
    /// `retry` or `cancel`.
    action: String,
    /// These jobs.
    #[serde(default)]
    ids: Vec<JobId>,
    /// Parked jobs of this failure group.
    #[serde(default)]
    group: Option<String>,
    /// Open jobs with this error code, or its beginning and `*`.
    #[serde(default)]
    code: Option<String>,
    /// Jobs that wait for this cause.
    #[serde(default)]
    cause: Option<String>,
    /// Parked or waiting jobs.
    #[serde(default)]
    state: Option<JobState>,
    #[serde(default)]
    organization: Option<String>,
    #[serde(default)]
    pipeline: Option<String>,
    #[serde(default)]
    source: Option<String>,
    /// Accepted within this time (`2h`), or at this time or later (RFC 3339).
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    since: Option<Since>,
    /// Jobs a second after the first waves, 1 to 100.
    #[serde(default = "five")]
    per_second: i32,
    /// It pauses when more than this part of a wave fails again, 0 to 100.
    #[serde(default = "twenty")]
    stop_at_percent: i32,
    /// The number of effects that may happen twice.
    #[serde(default)]
    duplicates: i32,
    /// Why, for the audit log.
    reason: String,
}

const fn five() -> i32 {
    5
}

const fn twenty() -> i32 {
    20
}

/// A campaign that was started.
#[derive(Serialize, JsonSchema)]
struct StartedCampaign {
    /// Its number.
    campaign: i64,
    /// The number of its jobs; `None` if the request was carried out before.
    jobs: Option<i64>,
    /// Whether there are more jobs than a campaign may have.
    is_partial: Option<bool>,
}

impl CampaignQuery {
    /// Returns when the jobs were accepted at the earliest.
    pub(in crate::console) fn accepted_since(&self) -> Option<OffsetDateTime> {
        begin(self.since)
    }

    fn filter(&self) -> CampaignFilter {
        CampaignFilter {
            ids: Vec::new(),
            group: self.group.clone(),
            error_code: self.code.clone(),
            cause: self.cause.clone(),
            state: self.state,
            organization: self.organization.clone(),
            pipeline: self.pipeline.clone(),
            source: self.source.clone(),
            accepted_since: self.accepted_since(),
        }
    }
}

fn begin(since: Option<Since>) -> Option<OffsetDateTime> {
    since.map(|since| since.at(OffsetDateTime::now_utc()))
}

fn action_of(word: Option<&str>) -> Result<BulkAction, Problem> {
    let asked = word.unwrap_or(BulkAction::Retry.word());
    let found = BulkAction::ALL.iter().find(|action| action.word() == asked);
    found.copied().ok_or_else(|| {
        let words: Vec<_> = BulkAction::ALL.iter().map(|action| action.word()).collect();
        Problem::invalid_filter(format!(
            "expected one of the actions {}, got `{asked}`",
            words.join(", ")
        ))
    })
}

/// The page of a list.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Page {
    before: Option<String>,
    limit: Option<i64>,
}

/// The page of items.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Items {
    after: Option<String>,
    limit: Option<i64>,
}

async fn list(call: Call) -> Result<Response, Problem> {
    answer::json(&read_campaigns(&call).await?)
}

/// Reads a page of campaigns.
///
/// # Errors
/// `invalid_filter`, `postgres_away`.
pub(in crate::console) async fn read_campaigns(call: &Call) -> Result<CampaignList, Problem> {
    let Page { before, limit } = call.query()?;
    let limit = query::limit(limit)?;
    let before = call.position(before.as_deref())?;
    let campaigns = call.reads().campaigns(before, limit).await?;
    let last = query::last_of_full(&campaigns, limit);
    Ok(CampaignList {
        next: last.map(|last| call.cursor(last.id)),
        campaigns,
    })
}

async fn preview(call: Call) -> Result<Response, Problem> {
    answer::json(&read_preview(&call, &call.query()?).await?)
}

/// Reads what a campaign would do.
///
/// # Errors
/// `invalid_filter`, `invalid_input`, `postgres_away`.
pub(in crate::console) async fn read_preview(
    call: &Call,
    query: &CampaignQuery,
) -> Result<CampaignPreview, Problem> {
    let action = action_of(query.action.as_deref())?;
    Ok(operations::preview_campaign(call.reads(), action, &query.filter()).await?)
}

async fn show(call: Call) -> Result<Response, Problem> {
    answer::json(&read_campaign(&call).await?)
}

/// Reads the campaign of the path.
///
/// # Errors
/// `not_found`, `postgres_away`.
pub(in crate::console) async fn read_campaign(call: &Call) -> Result<CampaignRow, Problem> {
    let number: i64 = call.part("number")?;
    let campaign = call.reads().campaign(number).await?;
    campaign.ok_or_else(|| Problem::not_found(format!("there is no campaign {number}")))
}

async fn items(call: Call) -> Result<Response, Problem> {
    answer::json(&read_items(&call).await?)
}

async fn read_items(call: &Call) -> Result<CampaignItems, Problem> {
    let number = read_campaign(call).await?.id;
    let Items { after, limit } = call.query()?;
    let limit = query::limit(limit)?;
    let after = call.position(after.as_deref())?.unwrap_or(0);
    let items = call.reads().campaign_items(number, after, limit).await?;
    let last = query::last_of_full(&items, limit);
    Ok(CampaignItems {
        next: last.map(|last| call.cursor(last.n)),
        items,
    })
}

async fn start(call: &Call) -> Result<StartedCampaign, Problem> {
    let new: New = call.input()?;
    let actor = call.actor(&new.reason)?;
    let campaign = NewCampaign {
        action: action_of(Some(&new.action))?,
        filter: CampaignFilter {
            ids: new.ids,
            group: new.group,
            error_code: new.code,
            cause: new.cause,
            state: new.state,
            organization: new.organization,
            pipeline: new.pipeline,
            source: new.source,
            accepted_since: begin(new.since),
        },
        per_second: new.per_second,
        stop_at_percent: new.stop_at_percent,
        duplicates: new.duplicates,
    };
    let mut started: Option<Started> = None;
    let changed = call.once(&actor, async |store, actor| {
        let made = operations::start_campaign(store, actor, &campaign).await?;
        let now = serde_json::json!({"campaign": made.campaign});
        started = Some(made);
        Ok(Changed {
            changed: true,
            before: serde_json::Value::Null,
            now,
        })
    });
    let now = changed.await?.now;
    let number = started.as_ref().map(|made| made.campaign);
    let number = number.or_else(|| now["campaign"].as_i64());
    Ok(StartedCampaign {
        campaign: number.ok_or_else(|| Problem::internal("the kept answer names no campaign"))?,
        jobs: started.as_ref().map(|made| made.jobs),
        is_partial: started.as_ref().map(|made| made.is_partial),
    })
}

async fn pause(call: &Call) -> Result<Changed, Problem> {
    change(call, async |store, actor, number| {
        operations::pause_campaign(store, actor, number).await
    })
    .await
}

async fn resume(call: &Call) -> Result<Changed, Problem> {
    change(call, async |store, actor, number| {
        operations::resume_campaign(store, actor, number).await
    })
    .await
}

async fn abort(call: &Call) -> Result<Changed, Problem> {
    change(call, async |store, actor, number| {
        operations::abort_campaign(store, actor, number).await
    })
    .await
}

async fn change(
    call: &Call,
    change: impl AsyncFnOnce(
        &crate::store::Store,
        &crate::store::Actor,
        i64,
    ) -> Result<CampaignResult, operations::OperationError>,
) -> Result<Changed, Problem> {
    let number: i64 = call.part("number")?;
    let Reason { reason } = call.input()?;
    let actor = call.actor(&reason)?;
    let state = |state: &str| serde_json::json!({"state": state});
    call.once(&actor, async |store, actor| {
        match change(store, actor, number).await? {
            CampaignResult::Done { before, now } => Ok(Changed {
                changed: true,
                before: state(&before),
                now: state(now),
            }),
            CampaignResult::Already(now) => Ok(Changed {
                changed: false,
                before: state(&now),
                now: state(&now),
            }),
            CampaignResult::Refused(why) => Err(ActFault::from(Problem::not_possible(why))),
            CampaignResult::NoSuchCampaign => {
                Err(Problem::not_found(format!("there is no campaign {number}")).into())
            }
        }
    })
    .await
}
