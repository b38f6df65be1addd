//! The ledger of effects: an intent is stored before its call.

use std::time::{Duration, Instant};

use deadpool_postgres::Transaction;
use tokio_postgres::types::Json;

use super::claim::{Fence, seconds};
use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query_one, query_opt};
use crate::engine::{Effect, Intent, PastEffect, Planned, effect_key, judge};
use crate::job::{Epoch, Job};

/// Result of storing an intent.
#[derive(Debug)]
pub enum IntentOutcome {
    /// The intent is stored: make the call.
    Go(Effect),
    /// Another effect, or this effect of an earlier owner, may still be in flight: try again after
    /// this time.
    NotYet(Duration),
    /// The outcome of the last call is unknown, and the policy of the destination requires a
    /// person to decide.
    Held,
    /// The write was fenced.
    Fenced,
}

/// Another effect on the same resource usually ends long before its deadline, so the next try is
/// not later than this.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

const FENCE: &str = "SELECT id FROM jobs WHERE id = $1 AND epoch = $2 AND owner = $3 AND state = 'running' FOR UPDATE";
const LOCK_RESOURCE: &str = "SELECT pg_advisory_xact_lock(7264020, hashtext($1))";
const BUSY: &str = "
    SELECT extract(epoch FROM max(deadline_at) - now())::float8 AS busy_for
    FROM effects WHERE resource = $1 AND state = 'in_flight' AND deadline_at > now() AND job_id <> $2";
const PAST: &str = "
    SELECT state, maybe_done, epoch, extract(epoch FROM now() - first_intent_at)::float8 AS age,
        extract(epoch FROM deadline_at - now())::float8 AS may_still_run
    FROM effects WHERE job_id = $1 AND key = $2";
const STORE: &str = "
    INSERT INTO effects AS e (job_id, key, generation, stage, target, class, state, resource, detail, epoch, deadline_at)
    VALUES ($1, $2, $3, $4, $5, $6, 'in_flight', $7, $8, $9, now() + $10 * interval '1 second')
    ON CONFLICT (job_id, key) DO UPDATE SET class = excluded.class, state = 'in_flight', resource = excluded.resource,
        detail = excluded.detail, epoch = excluded.epoch, intent_at = now(), deadline_at = excluded.deadline_at,
        first_intent_at = CASE WHEN e.state = 'failed' AND NOT e.maybe_done THEN now() ELSE e.first_intent_at END,
        settled_at = NULL, unknowns = e.unknowns + $11,
        maybe_done = e.maybe_done OR e.state = 'unknown' OR (e.state = 'in_flight' AND e.epoch < excluded.epoch)";
const REFUSED: &str = "
    UPDATE effects SET state = 'failed', settled_at = now() WHERE job_id = $1 AND key = $2 AND epoch = $3 AND state = 'in_flight'";

impl Store {
    /// Stores the intent of the running stage of `job`, unless the ledger forbids it now.
    ///
    /// # Errors
    /// [`StoreError`]. If the connection was lost, the intent may be stored; storing it again is
    /// harmless.
    pub async fn store_intent(
        &self,
        fence: &Fence,
        job: &Job,
        intent: &Intent,
    ) -> Result<IntentOutcome, StoreError> {
        let deadline = Instant::now() + intent.timeout;
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        if query_opt(
            &tx,
            FENCE,
            &[&fence.job.0, &fence.epoch.0, &fence.replica.0],
        )
        .await?
        .is_none()
        {
            return Ok(IntentOutcome::Fenced);
        }
        if let Some(busy_for) = busy(&tx, fence, intent).await? {
            return Ok(IntentOutcome::NotYet(busy_for));
        }
        let key = effect_key(job.id, job.generation, &job.stage, &intent.target);
        let past = past(&tx, fence, &key).await?;
        let (class, record_unknown) = match judge(intent, past, fence.epoch) {
            Planned::Go {
                class,
                record_unknown,
            } => (class, record_unknown),
            Planned::NotYet(wait) => return Ok(IntentOutcome::NotYet(wait)),
            Planned::Held => return Ok(IntentOutcome::Held),
        };
        execute(
            &tx,
            STORE,
            &[
                &job.id.0,
                &key,
                &job.generation.0,
                &job.stage,
                &intent.target,
                &class.word(),
                &intent.resource,
                &Json(&intent.detail),
                &fence.epoch.0,
                &intent.timeout.as_secs_f64(),
                &i32::from(record_unknown),
            ],
        )
        .await?;
        tx.commit().await?;
        let detail = intent.detail.clone();
        let repeated = past.is_some_and(|past| past.may_be_done(fence.epoch));
        Ok(IntentOutcome::Go(Effect {
            key,
            class,
            detail,
            deadline,
            repeated,
        }))
    }

    /// Settles an effect of this claim whose call was refused. An effect that a later claim has
    /// stored again is not changed.
    ///
    /// # Errors
    /// [`StoreError`]; settling it again is harmless.
    pub async fn effect_refused(&self, fence: &Fence, key: &str) -> Result<(), StoreError> {
        execute(
            &self.client().await?,
            REFUSED,
            &[&fence.job.0, &key, &fence.epoch.0],
        )
        .await?;
        Ok(())
    }
}

/// Returns when to try again if another job's effect uses the resource.
async fn busy(
    tx: &Transaction<'_>,
    fence: &Fence,
    intent: &Intent,
) -> Result<Option<Duration>, StoreError> {
    let Some(resource) = &intent.resource else {
        return Ok(None);
    };
    execute(tx, LOCK_RESOURCE, &[resource]).await?;
    let row = query_one(tx, BUSY, &[resource, &fence.job.0]).await?;
    Ok(seconds(row.try_get("busy_for")?).map(|busy_for| busy_for.min(LOOK_AGAIN)))
}

async fn past(
    tx: &Transaction<'_>,
    fence: &Fence,
    key: &str,
) -> Result<Option<PastEffect>, StoreError> {
    let Some(row) = query_opt(tx, PAST, &[&fence.job.0, &key]).await? else {
        return Ok(None);
    };
    let state: String = row.try_get("state")?;
    Ok(Some(PastEffect {
        state: state
            .parse()
            .map_err(|error: crate::job::UnknownWord| StoreError::Row(error.to_string()))?,
        maybe_done: row.try_get("maybe_done")?,
        epoch: Epoch(row.try_get("epoch")?),
        age: seconds(row.try_get("age")?).unwrap_or_default(),
        may_still_run: seconds(row.try_get("may_still_run")?).unwrap_or_default(),
    }))
}
