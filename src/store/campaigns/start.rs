//! Starts a campaign: the snapshot of its jobs, in one transaction.

use deadpool_postgres::Transaction;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_postgres::types::Json;
use tokio_postgres::types::ToSql;

use super::super::audit::{Action, Actor, AuditedChange};
use super::super::error::StoreError;
use super::super::handle::Store;
use super::super::sql::{execute, query_one};
use super::action::BulkAction;
use super::not_started::{MOST_OPEN, NotStarted};
use super::select::{CampaignFilter, Checked, LOOK};

/// Seconds from the snapshot to the first wave, in which a person can still abort.
const STARTS_AFTER: i64 = 10;
/// Maximum length of a reason.
const LONGEST_REASON: usize = 2_000;

/// A campaign that a person starts.
#[derive(Debug, Clone)]
pub struct NewCampaign {
    /// What is done to each job.
    pub action: BulkAction,
    /// The jobs.
    pub filter: CampaignFilter,
    /// Jobs a second after the first waves, 1 to 100.
    pub per_second: i32,
    /// The campaign pauses when more than this part of a wave fails again, 0 to 100.
    pub stop_at_percent: i32,
    /// The number of duplicates that the person accepts.
    pub duplicates: i32,
}

/// A campaign that was started.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Started {
    /// Its id.
    pub campaign: i64,
    /// The number of its jobs.
    pub jobs: i64,
    /// Whether there are more jobs than a campaign may have.
    pub is_partial: bool,
    /// When it begins.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub starts_at: OffsetDateTime,
}

/// Lets one campaign be started at a time, so that the limit holds.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7264019, 4)";
const OPEN: &str = "SELECT count(*) AS open FROM campaigns WHERE finished_at IS NULL";

const INSERT: &str = "
    INSERT INTO campaigns (action, filter, fingerprint, who, role, reason, per_second, stop_at_percent, duplicates_allowed, total, next_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, clock_timestamp() + $10::bigint * interval '1 second')
    RETURNING id";
const TOTAL: &str = "
    UPDATE campaigns SET total = $2, next_at = clock_timestamp() + $3::bigint * interval '1 second' WHERE id = $1 RETURNING next_at";

/// Counts the effects of the snapshot that may happen twice. `OFFSET 0` keeps the planner from
/// reading all effects instead of those of each job.
const DUPLICATES: &str = "
    SELECT count(*) AS effects FROM campaign_items i CROSS JOIN LATERAL (
        SELECT FROM effects WHERE job_id = i.job_id AND class = 'K3' AND (state IN ('in_flight', 'unknown') OR maybe_done) OFFSET 0) e
    WHERE i.campaign = $1";

impl Store {
    /// Makes the snapshot of a campaign; it begins 10 s later.
    ///
    /// # Errors
    /// [`StoreError`]; the inner error is [`NotStarted`]. Nothing is changed then.
    pub async fn start_campaign(
        &self,
        actor: &Actor,
        new: &NewCampaign,
    ) -> Result<Result<Started, NotStarted>, StoreError> {
        let checked = match new.check(actor) {
            Ok(checked) => checked,
            Err(why) => return Ok(Err(why)),
        };
        let start = async |tx: &Transaction<'_>| {
            let answer = snapshot(tx, actor, new, &checked).await?;
            let audit = match &answer {
                Ok(started) => Some((Value::Null, started.audited(new))),
                Err(_) => None,
            };
            Ok::<_, StoreError>(AuditedChange {
                answer,
                audit,
                gone: None,
            })
        };
        let (answer, _) = self.audited(actor, Action::StartCampaign, start).await?;
        Ok(answer)
    }
}

impl NewCampaign {
    fn check(&self, actor: &Actor) -> Result<Checked<'_>, NotStarted> {
        let out = |what, got: String| Err(NotStarted::OutOfRange { what, got });
        if !(1..=100).contains(&self.per_second) {
            return out("1 to 100 jobs a second", self.per_second.to_string());
        }
        if !(0..=100).contains(&self.stop_at_percent) {
            return out("0 to 100 percent", self.stop_at_percent.to_string());
        }
        if self.duplicates < 0 {
            return out(
                "a number of duplicates from 0 on",
                self.duplicates.to_string(),
            );
        }
        let reason = actor.reason.as_deref().unwrap_or_default().trim().len();
        if !(1..=LONGEST_REASON).contains(&reason) {
            return out("a reason of 1 to 2000 bytes", reason.to_string());
        }
        self.filter.check()
    }
}

impl Started {
    fn audited(&self, new: &NewCampaign) -> Value {
        json!({"campaign": self.campaign, "action": new.action.word(), "filter": new.filter, "jobs": self.jobs,
            "per_second": new.per_second, "stop_at_percent": new.stop_at_percent, "duplicates": new.duplicates})
    }
}

async fn snapshot(
    tx: &Transaction<'_>,
    actor: &Actor,
    new: &NewCampaign,
    checked: &Checked<'_>,
) -> Result<Result<Started, NotStarted>, StoreError> {
    execute(tx, LOCK, &[]).await?;
    let open: i64 = query_one(tx, OPEN, &[]).await?.try_get("open")?;
    if open >= MOST_OPEN {
        return Ok(Err(NotStarted::TooMany(open)));
    }
    let (action, role, reason) = (new.action.word(), actor.role.word(), &actor.reason);
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &action,
        &Json(&new.filter),
        &new.filter.group,
        &actor.who,
        &role,
        reason,
        &new.per_second,
        &new.stop_at_percent,
        &new.duplicates,
        &STARTS_AFTER,
    ];
    let campaign: i64 = query_one(tx, INSERT, &parameters).await?.try_get("id")?;
    let mut parameters = checked.parameters(&LOOK);
    parameters.push(&campaign);
    let row = query_one(tx, checked.way.insert, &parameters).await?;
    let jobs: i64 = row.try_get("jobs")?;
    if jobs == 0 {
        return Ok(Err(NotStarted::NoJobs));
    }
    if new.action.repeats_effects() {
        let effects: i64 = query_one(tx, DUPLICATES, &[&campaign])
            .await?
            .try_get("effects")?;
        if effects > i64::from(new.duplicates) {
            return Ok(Err(NotStarted::Duplicates {
                at_least: effects,
                accepted: new.duplicates,
            }));
        }
    }
    let total = i32::try_from(jobs).unwrap_or(i32::MAX);
    let begins = query_one(tx, TOTAL, &[&campaign, &total, &STARTS_AFTER]).await?;
    Ok(Ok(Started {
        campaign,
        jobs,
        is_partial: row.try_get::<_, i64>("looked")? == LOOK,
        starts_at: begins.try_get("next_at")?,
    }))
}
