//! Actions of people on one job. Each action raises the epoch, which takes a running job from its
//! owner, and writes its audit row in the same transaction.

use deadpool_postgres::{GenericClient, Transaction};
use serde_json::{Value, json};
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::announcements::announce;
use super::error::StoreError;
use super::handle::Store;
use super::job_row::state_of;
use super::releases::{Released, begin_for_people};
use super::rows;
use super::sql::{execute, query_one, query_opt};
use crate::job::{JobId, JobState};
use crate::message::outcome;

/// The person or program that acts, and the reason.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Name of the actor.
    pub who: String,
    /// `operator`, `producer` …
    pub role: String,
    /// The reason, in the actor's words.
    pub reason: Option<String>,
}

/// The job that an action is for.
#[derive(Debug, Clone)]
pub enum Target {
    /// The job with this id.
    Id(JobId),
    /// The job with this producer's key.
    Key {
        /// Name of the producer.
        source: String,
        /// The dedupe key.
        dedupe_key: String,
    },
}

/// Result of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionResult {
    /// The action was carried out.
    Done {
        /// The job.
        job: JobId,
        /// State before the action.
        before: JobState,
        /// State after the action.
        now: JobState,
    },
    /// The job is in the requested state already; nothing was changed.
    Already(JobId, JobState),
    /// The action is not possible; the text says what to do instead.
    Refused(JobId, String),
    /// There is no such job.
    NoSuchJob,
}

/// A change of the product's tables by a person.
#[derive(Debug, Clone)]
pub struct AuditedChange<T> {
    /// The answer for the caller.
    pub answer: T,
    /// The state before and after the change, for the audit log; `None` if nothing has changed.
    pub audit: Option<(Value, Value)>,
    /// The cause that the change removes; the jobs that wait for it are released.
    pub gone: Option<String>,
}

/// A job whose row is locked.
pub(super) struct Locked {
    id: JobId,
    parent: Option<JobId>,
    state: JobState,
    wait_reason: Option<String>,
    account: Option<String>,
    error_code: Option<String>,
}

const FIND_KEY: &str =
    "SELECT job_id FROM job_keys WHERE source = $1 AND dedupe_key = $2 AND job_id IS NOT NULL";
const PARENT: &str = "SELECT parent_id FROM jobs WHERE id = $1";
const LOCKED: &str =
    "SELECT state, wait_reason, account, error_code FROM jobs WHERE id = $1 FOR UPDATE";

const RETRY: &str = "
    UPDATE jobs SET state = 'ready', epoch = epoch + 1, owner = NULL, attempt = 1, crash_count = 0, due_at = now(), woken_at = NULL,
        wait_reason = NULL, wait_key = NULL, wait_observed = NULL, deadline = CASE WHEN deadline < now() THEN NULL ELSE deadline END,
        read_again = read_again OR state = 'parked'
    WHERE id = $1";

const ALLOW_REPEAT: &str = "
    UPDATE effects SET state = 'failed', maybe_done = false, unknowns = unknowns + 1, settled_at = now()
    WHERE job_id = $1 AND (state IN ('in_flight', 'unknown') OR maybe_done)";

/// The assignments that cancel a row of `jobs`, for one job or many.
macro_rules! cancelled {
    () => {
        "state = 'cancelled', epoch = epoch + 1, owner = NULL, wait_reason = NULL, wait_key = NULL, wait_observed = NULL, \
         partial = NULL, finished_at = now()"
    };
}
pub(super) use cancelled;

const CANCEL: &str = concat!(
    "UPDATE jobs SET ",
    cancelled!(),
    ", open_children = 0 WHERE id = $1"
);

const LOCK_CHILDREN: &str = "SELECT id FROM jobs WHERE parent_id = $1 AND state NOT IN ('succeeded', 'cancelled') ORDER BY id FOR UPDATE";

const CANCEL_CHILDREN: &str = concat!(
    "UPDATE jobs SET ",
    cancelled!(),
    " WHERE parent_id = $1 AND state NOT IN ('succeeded', 'cancelled')"
);

const CONFIGURE: &str = "
    UPDATE jobs SET state = 'ready', epoch = epoch + 1, owner = NULL, generation = generation + 1, account = $2, stage = $3, attempt = 1,
        crash_count = 0, due_at = now(), woken_at = NULL, wait_reason = NULL, wait_key = NULL, wait_observed = NULL, error_code = NULL,
        error_message = NULL, error_hint = NULL, fingerprint = NULL, first_failed_at = NULL, open_children = 0, skipped = NULL,
        partial = NULL, read_again = false
    WHERE id = $1";

const AUDIT: &str = "
    INSERT INTO audit_log (who, role, action, job_id, before, after, reason) VALUES ($1, $2, $3, $4, $5, $6, $7)";

impl Store {
    /// Makes a job that is parked, waiting or due later due now, with all its attempts. Its
    /// checkpoints are kept: it continues at the stage where it stopped.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retry(&self, target: &Target, actor: &Actor) -> Result<ActionResult, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let Some(job) = find(&tx, target).await? else {
            return Ok(ActionResult::NoSuchJob);
        };
        match job.state {
            JobState::Running => return Ok(ActionResult::Already(job.id, job.state)),
            JobState::Succeeded | JobState::Cancelled => {
                return Ok(ActionResult::Refused(
                    job.id,
                    format!(
                        "it is {}; publish it again with a new dedupe_key",
                        job.state
                    ),
                ));
            }
            JobState::Waiting if job.wait_reason.as_deref() == Some("children") => {
                return Ok(ActionResult::Refused(
                    job.id,
                    "it waits for its follow-ups; retry the one that is parked".to_owned(),
                ));
            }
            JobState::Waiting if job.wait_reason.as_deref() == Some("configuration") => {
                return Ok(ActionResult::Refused(
                    job.id,
                    "it waits for an account; use `dispatch jobs configure`".to_owned(),
                ));
            }
            JobState::Ready | JobState::Waiting | JobState::Parked => {}
        }
        if job.error_code.as_deref() == Some("unknown_outcome") {
            // The person who retries the job accepts a duplicate; this is recorded before the
            // duplicate can happen.
            execute(&tx, ALLOW_REPEAT, &[&job.id.0]).await?;
        }
        execute(&tx, RETRY, &[&job.id.0]).await?;
        finish(
            tx,
            &job,
            actor,
            "retry",
            JobState::Ready,
            json!({"state": "ready"}),
        )
        .await
    }

    /// Cancels a job that is not done, and its open follow-ups.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel(&self, target: &Target, actor: &Actor) -> Result<ActionResult, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        match find(&tx, target).await? {
            Some(job) => end(tx, &job, actor).await,
            None => Ok(ActionResult::NoSuchJob),
        }
    }

    /// Sets the account that a job waits for. The job starts again at `first_stage`, as a new
    /// generation with the same id. Follow-ups that ask for the account are cancelled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn configure(
        &self,
        target: &Target,
        account: &str,
        first_stage: &str,
        actor: &Actor,
    ) -> Result<ActionResult, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let Some(job) = find(&tx, target).await? else {
            return Ok(ActionResult::NoSuchJob);
        };
        if job.account.as_deref() == Some(account) {
            return Ok(ActionResult::Already(job.id, job.state));
        }
        if job.wait_reason.as_deref() != Some("configuration") {
            return Ok(ActionResult::Refused(
                job.id,
                "it does not wait for an account".to_owned(),
            ));
        }
        cancel_children(&tx, job.id).await?;
        execute(&tx, CONFIGURE, &[&job.id.0, &account, &first_stage]).await?;
        finish(
            tx,
            &job,
            actor,
            "configure",
            JobState::Ready,
            json!({"state": "ready", "account": account}),
        )
        .await
    }

    /// Makes a change that another module implements and writes its audit row, in one transaction.
    /// `change` returns its answer and the state before and after it. If it returns no states,
    /// nothing has changed and nothing is written.
    ///
    /// # Errors
    /// Errors of `change`, and [`StoreError`]; nothing is changed then.
    pub async fn audited<T, E: From<StoreError>>(
        &self,
        actor: &Actor,
        action: &str,
        change: impl AsyncFnOnce(&Transaction<'_>) -> Result<(T, Option<(Value, Value)>), E>,
    ) -> Result<T, E> {
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(StoreError::from)?;
        let (answer, changed) = change(&tx).await?;
        if let Some((before, after)) = changed {
            write_audit(&tx, actor, action, None, &before, &after).await?;
            tx.commit().await.map_err(StoreError::from)?;
        }
        Ok(answer)
    }

    /// Makes a change like [`Store::audited`] that may remove a cause of waiting, and releases the
    /// jobs that wait for this cause in the same transaction, even if nothing was changed. Returns
    /// the answer of the change and the number of released jobs.
    ///
    /// # Errors
    /// Same as [`Store::audited`].
    pub async fn audited_release<T, E: From<StoreError>>(
        &self,
        actor: &Actor,
        action: &str,
        change: impl AsyncFnOnce(&Transaction<'_>) -> Result<AuditedChange<T>, E>,
    ) -> Result<(T, Released), E> {
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(StoreError::from)?;
        let AuditedChange {
            answer,
            audit,
            gone,
        } = change(&tx).await?;
        if let Some((before, after)) = audit {
            write_audit(&tx, actor, action, None, &before, &after).await?;
        }
        let released = match &gone {
            Some(cause) => begin_for_people(&tx, cause).await?,
            None => Released::default(),
        };
        tx.commit().await.map_err(StoreError::from)?;
        Ok((answer, released))
    }

    /// Writes an audit row for an action of a person; `before` and `after` describe what it
    /// changed or concerned.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit(
        &self,
        actor: &Actor,
        action: &str,
        job: Option<JobId>,
        before: &Value,
        after: &Value,
    ) -> Result<(), StoreError> {
        write_audit(&self.client().await?, actor, action, job, before, after).await
    }
}

/// Cancels a locked job, unless it is done, and its open follow-ups.
pub(super) async fn end(
    tx: Transaction<'_>,
    job: &Locked,
    actor: &Actor,
) -> Result<ActionResult, StoreError> {
    if job.state.is_done() {
        return Ok(ActionResult::Already(job.id, job.state));
    }
    let children = cancel_children(&tx, job.id).await?;
    execute(&tx, CANCEL, &[&job.id.0]).await?;
    announce(&tx, &[job.id], outcome::CANCELLED, 0.0).await?;
    if let Some(parent) = job.parent
        && rows::child_done(&tx, parent).await?
    {
        announce(&tx, &[parent], outcome::SUCCEEDED, 0.0).await?;
    }
    let after = json!({"state": "cancelled", "follow_ups_cancelled": children});
    finish(tx, job, actor, "cancel", JobState::Cancelled, after).await
}

/// Cancels the open follow-ups of a job, locked in the order of their ids, and returns their
/// number.
async fn cancel_children(tx: &Transaction<'_>, parent: JobId) -> Result<u64, StoreError> {
    execute(tx, LOCK_CHILDREN, &[&parent.0]).await?;
    execute(tx, CANCEL_CHILDREN, &[&parent.0]).await
}

/// Writes an audit row on any connection or transaction, for changes that are not made through the
/// pool.
///
/// # Errors
/// [`StoreError`].
pub async fn audit_on<C: tokio_postgres::GenericClient>(
    on: &C,
    actor: &Actor,
    action: &str,
    before: &Value,
    after: &Value,
) -> Result<(), StoreError> {
    let (who, role) = (&actor.who, &actor.role);
    on.execute(
        AUDIT,
        &[
            who,
            role,
            &action,
            &None::<Uuid>,
            &Json(before),
            &Json(after),
            &actor.reason,
        ],
    )
    .await?;
    Ok(())
}

pub(super) async fn write_audit<C: GenericClient>(
    on: &C,
    actor: &Actor,
    action: &str,
    job: Option<JobId>,
    before: &Value,
    after: &Value,
) -> Result<(), StoreError> {
    let (who, role, job) = (&actor.who, &actor.role, job.map(|job| job.0));
    execute(
        on,
        AUDIT,
        &[
            who,
            role,
            &action,
            &job,
            &Json(before),
            &Json(after),
            &actor.reason,
        ],
    )
    .await?;
    Ok(())
}

/// Locks the target, and its parent before it.
pub(super) async fn find(
    tx: &Transaction<'_>,
    target: &Target,
) -> Result<Option<Locked>, StoreError> {
    let id = match target {
        Target::Id(id) => *id,
        Target::Key { source, dedupe_key } => {
            match query_opt(tx, FIND_KEY, &[source, dedupe_key]).await? {
                Some(row) => JobId(row.try_get("job_id")?),
                None => return Ok(None),
            }
        }
    };
    let Some(row) = query_opt(tx, PARENT, &[&id.0]).await? else {
        return Ok(None);
    };
    let parent = row.try_get::<_, Option<Uuid>>("parent_id")?.map(JobId);
    if let Some(parent) = parent {
        rows::lock(tx, parent).await?;
    }
    let row = query_one(tx, LOCKED, &[&id.0]).await?;
    Ok(Some(Locked {
        id,
        parent,
        state: state_of(&row)?,
        wait_reason: row.try_get("wait_reason")?,
        account: row.try_get("account")?,
        error_code: row.try_get("error_code")?,
    }))
}

async fn finish(
    tx: Transaction<'_>,
    job: &Locked,
    actor: &Actor,
    action: &str,
    now: JobState,
    after: Value,
) -> Result<ActionResult, StoreError> {
    let before = json!({"state": job.state, "wait_reason": job.wait_reason});
    write_audit(&tx, actor, action, Some(job.id), &before, &after).await?;
    tx.commit().await?;
    Ok(ActionResult::Done {
        job: job.id,
        before: job.state,
        now,
    })
}
