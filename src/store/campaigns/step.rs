//! One step of a campaign that is due: it acts on one item, or gives a wave its verdict. A step is
//! one transaction under a lock of the campaign's row, which a killed process releases unchanged.

use deadpool_postgres::Transaction;
use serde_json::json;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::super::actions::{ActionResult, JobChange, LockedJob, Target, change_job};
use super::super::audit::{Action, Actor, Role, write_audit};
use super::super::error::StoreError;
use super::super::handle::Store;
use super::super::sql::{execute, query_one, query_opt};
use super::action::BulkAction;
use super::wave::{Wave, size};
use crate::fault::chain;
use crate::job::JobId;

/// Verdicts that a campaign keeps.
const KEPT_VERDICTS: usize = 10;

/// What a step did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepDone {
    /// No campaign is due, or another replica steps it.
    Nothing,
    /// It acted on an item, began a wave or looked at the results of one.
    More,
    /// The campaign was paused, for this reason.
    Paused(i64, String),
    /// The campaign is finished.
    Finished(i64),
}

/// A campaign whose row is locked.
struct Due {
    id: i64,
    action: BulkAction,
    actor: Actor,
    per_second: i32,
    stop_at_percent: i32,
    total: i32,
    next_n: i32,
    wave: i32,
    wave_from: i32,
    wave_until: i32,
    ramp: i32,
    verdicts: Vec<Wave>,
}

pub(crate) const DUE: &str = "
    SELECT id, action, who, role, reason, per_second, stop_at_percent, total, next_n, wave, wave_from, wave_until, ramp, verdicts
    FROM campaigns
    WHERE finished_at IS NULL AND state IN ('planned', 'running') AND next_at <= clock_timestamp() AND action = ANY ($1)
    ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED";

const ITEM: &str = "SELECT job_id FROM campaign_items WHERE campaign = $1 AND n = $2";

pub(crate) const MARK: &str = "
    UPDATE campaign_items SET state = $3, why = left($4, 2000), acted_at = now(),
        stage = (SELECT stage FROM jobs WHERE id = campaign_items.job_id)
    WHERE campaign = $1 AND n = $2";

/// The rate allows at most a second's worth of items at once.
const NEXT: &str = "
    UPDATE campaigns SET next_n = next_n + 1, refused = refused + $2, good = good + $3,
        next_at = greatest(next_at, clock_timestamp() - interval '1 second') + interval '1 second' / per_second
    WHERE id = $1";

/// The item is still the next one, after its transaction was rolled back.
const STILL_NEXT: &str = "SELECT id FROM campaigns WHERE id = $1 AND next_n = $2 FOR UPDATE";

/// Scalar subqueries read one row for each item by its key, whatever the statistics are.
pub(crate) const JUDGE: &str = "
    WITH looked AS MATERIALIZED (
        SELECT n, job_id, stage, acted_at FROM campaign_items WHERE campaign = $1 AND n BETWEEN $2 AND $3 AND state = 'acted'
        ORDER BY campaign, n
    ), judged AS MATERIALIZED (
        SELECT n, (SELECT CASE WHEN j.state IN ('succeeded', 'cancelled') THEN 'good'
                WHEN (SELECT true FROM checkpoints c WHERE c.job_id = j.id AND c.generation = j.generation AND c.stage = looked.stage
                    AND c.finished_at >= looked.acted_at LIMIT 1) THEN 'good'
                WHEN j.state = 'parked' THEN 'bad ' || coalesce(j.error_code, '')
                WHEN looked.acted_at < now() - interval '60 seconds' THEN 'unknown' END
            FROM jobs j WHERE j.id = looked.job_id) AS verdict
        FROM looked
    ), changed AS (
        UPDATE campaign_items i SET state = split_part(verdict, ' ', 1),
            why = CASE split_part(verdict, ' ', 1) WHEN 'bad' THEN 'it was parked again: ' || substr(verdict, 5)
                WHEN 'unknown' THEN 'no result within 60 s' END
        FROM judged WHERE i.campaign = $1 AND i.n = judged.n AND i.n BETWEEN $2 AND $3 AND verdict IS NOT NULL
        RETURNING i.state
    )
    SELECT count(*) FILTER (WHERE state = 'good')::integer AS good, count(*) FILTER (WHERE state = 'bad')::integer AS bad,
        count(*) FILTER (WHERE state = 'unknown')::integer AS unknown FROM changed";

pub(crate) const WAVE: &str = "
    SELECT count(*) FILTER (WHERE state = 'acted') AS open, count(*) FILTER (WHERE state = 'good') AS good,
        count(*) FILTER (WHERE state = 'bad') AS bad, count(*) FILTER (WHERE state = 'unknown') AS unknown,
        count(*) FILTER (WHERE state = 'refused') AS refused
    FROM campaign_items WHERE campaign = $1 AND n BETWEEN $2 AND $3";

const ADD: &str = "
    UPDATE campaigns SET good = good + $2, bad = bad + $3, unknown = unknown + $4, next_at = clock_timestamp() + interval '1 second'
    WHERE id = $1";
const VERDICT: &str = "UPDATE campaigns SET verdicts = $2 WHERE id = $1";
const BEGIN: &str = "
    UPDATE campaigns SET state = 'running', wave = wave + 1, wave_from = next_n, wave_until = least(total, next_n - 1 + $2), ramp = $3,
        next_at = clock_timestamp() WHERE id = $1";
const FINISH: &str =
    "UPDATE campaigns SET state = 'finished', why = NULL, finished_at = now() WHERE id = $1";
const PAUSE: &str = "UPDATE campaigns SET state = 'paused', why = $2 WHERE id = $1";

impl Store {
    /// Does the next step of a campaign that is due. `change` is the action on one locked job, the
    /// same as for a person.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is changed then, and the step is repeated.
    pub async fn step_campaign(
        &self,
        change: impl AsyncFnOnce(
            &Transaction<'_>,
            BulkAction,
            &Actor,
            &LockedJob,
        ) -> Result<JobChange, StoreError>,
    ) -> Result<StepDone, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let Some(row) = query_opt(&tx, DUE, &[&BulkAction::WORDS]).await? else {
            return Ok(StepDone::Nothing);
        };
        let due = Due::of(&row)?;
        let done = if due.wave == 0 {
            due.begin(&tx, due.ramp).await
        } else if due.next_n > due.wave_until {
            due.judge(&tx).await
        } else {
            due.act(&tx, change).await
        };
        match done {
            Ok(done) => {
                tx.commit().await?;
                Ok(done)
            }
            // One row that Postgres refuses must not stop all the others.
            Err(error) if due.next_n <= due.wave_until && !error.is_infrastructure() => {
                tx.rollback().await?;
                let tx = client.transaction().await?;
                due.refuse(&tx, &chain(&error)).await?;
                tx.commit().await?;
                Ok(StepDone::More)
            }
            Err(error) => Err(error),
        }
    }
}

impl Due {
    fn of(row: &Row) -> Result<Self, StoreError> {
        let id: i64 = row.try_get("id")?;
        let word = |name: &str| row.try_get::<_, &str>(name);
        let unknown = |what: &str| StoreError::Row(format!("campaign {id}: {what}"));
        let reason = word("reason")?;
        let Json(verdicts) = row.try_get("verdicts")?;
        Ok(Self {
            id,
            action: BulkAction::of_word(word("action")?).ok_or_else(|| unknown("its action"))?,
            actor: Actor {
                who: row.try_get("who")?,
                role: Role::of_word(word("role")?).ok_or_else(|| unknown("its role"))?,
                reason: Some(format!("campaign {id}: {reason}")),
                request: None,
            },
            per_second: row.try_get("per_second")?,
            stop_at_percent: row.try_get("stop_at_percent")?,
            total: row.try_get("total")?,
            next_n: row.try_get("next_n")?,
            wave: row.try_get("wave")?,
            wave_from: row.try_get("wave_from")?,
            wave_until: row.try_get("wave_until")?,
            ramp: row.try_get("ramp")?,
            verdicts,
        })
    }

    async fn begin(&self, tx: &Transaction<'_>, ramp: i32) -> Result<StepDone, StoreError> {
        let size = size(ramp, self.per_second);
        execute(tx, BEGIN, &[&self.id, &size, &ramp]).await?;
        Ok(StepDone::More)
    }

    /// Acts on the next item, as a person would on its job.
    async fn act(
        &self,
        tx: &Transaction<'_>,
        change: impl AsyncFnOnce(
            &Transaction<'_>,
            BulkAction,
            &Actor,
            &LockedJob,
        ) -> Result<JobChange, StoreError>,
    ) -> Result<StepDone, StoreError> {
        let item = query_one(tx, ITEM, &[&self.id, &self.next_n]).await?;
        let target = Target::Id(JobId(item.try_get::<_, Uuid>("job_id")?));
        let result = change_job(
            tx,
            &self.actor,
            self.action.audited(),
            &target,
            async |tx, job| change(tx, self.action, &self.actor, job).await,
        );
        let (state, why) = match result.await? {
            ActionResult::Done { .. } if self.action.is_done_at_once() => ("good", None),
            ActionResult::Done { .. } => ("acted", None),
            ActionResult::Already(_, state) => (
                "refused",
                Some(format!("it is {state} already; nothing was changed")),
            ),
            ActionResult::Refused(_, why) => ("refused", Some(why)),
            // A campaign names no version.
            ActionResult::NoSuchJob | ActionResult::MovedOn { .. } => {
                ("refused", Some("there is no such job".to_owned()))
            }
        };
        self.mark(tx, state, why.as_deref()).await?;
        Ok(StepDone::More)
    }

    async fn mark(
        &self,
        tx: &Transaction<'_>,
        state: &str,
        why: Option<&str>,
    ) -> Result<(), StoreError> {
        execute(tx, MARK, &[&self.id, &self.next_n, &state, &why]).await?;
        let (refused, good) = (i32::from(state == "refused"), i32::from(state == "good"));
        execute(tx, NEXT, &[&self.id, &refused, &good]).await?;
        Ok(())
    }

    /// Records that Postgres refused the action on the next item.
    async fn refuse(&self, tx: &Transaction<'_>, why: &str) -> Result<(), StoreError> {
        if query_opt(tx, STILL_NEXT, &[&self.id, &self.next_n])
            .await?
            .is_some()
        {
            self.mark(tx, "refused", Some(why)).await?;
        }
        Ok(())
    }

    /// Looks at the results of the wave. When it has all of them, the campaign goes on, pauses or
    /// ends.
    async fn judge(&self, tx: &Transaction<'_>) -> Result<StepDone, StoreError> {
        let range: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&self.id, &self.wave_from, &self.wave_until];
        let row = query_one(tx, JUDGE, &range).await?;
        let [good, bad, unknown] =
            ["good", "bad", "unknown"].map(|name| row.try_get::<_, i32>(name));
        execute(tx, ADD, &[&self.id, &good?, &bad?, &unknown?]).await?;
        let row = query_one(tx, WAVE, &range).await?;
        if row.try_get::<_, i64>("open")? > 0 {
            return Ok(StepDone::More);
        }
        let wave = Wave {
            wave: self.wave,
            until: self.wave_until,
            good: row.try_get("good")?,
            bad: row.try_get("bad")?,
            unknown: row.try_get("unknown")?,
            refused: row.try_get("refused")?,
        };
        let mut verdicts = self.verdicts.clone();
        // A campaign that was paused after the verdict has it already.
        let is_new = verdicts.last().map(|last| last.wave) != Some(wave.wave);
        if is_new {
            verdicts.push(wave);
            verdicts.drain(..verdicts.len().saturating_sub(KEPT_VERDICTS));
            execute(tx, VERDICT, &[&self.id, &Json(&verdicts)]).await?;
            if self.next_n <= self.total
                && let Some(why) = wave.stops_at(self.stop_at_percent)
            {
                return self.pause(tx, why).await;
            }
        }
        if self.next_n > self.total {
            execute(tx, FINISH, &[&self.id]).await?;
            return Ok(StepDone::Finished(self.id));
        }
        // A wave in which nothing was acted on shows nothing, nor does one before a pause.
        let ramp = if is_new && wave.acted() > 0 {
            self.ramp.saturating_add(1)
        } else {
            self.ramp
        };
        self.begin(tx, ramp).await
    }

    async fn pause(&self, tx: &Transaction<'_>, why: String) -> Result<StepDone, StoreError> {
        execute(tx, PAUSE, &[&self.id, &why]).await?;
        let worker = Actor {
            who: "campaigns".to_owned(),
            role: Role::Worker,
            reason: Some(why.clone()),
            request: None,
        };
        let (before, after) = (
            json!({"campaign": self.id, "state": "running"}),
            json!({"campaign": self.id, "state": "paused"}),
        );
        worker.permit(Action::PauseCampaign)?;
        write_audit(tx, &worker, Action::PauseCampaign, None, &before, &after).await?;
        Ok(StepDone::Paused(self.id, why))
    }
}
