//! Actions of people on one job. Each action raises the epoch, which takes a running job from its
//! owner, and writes its audit row in the same transaction.

use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use uuid::Uuid;

use super::announcements::announce;
use super::audit::{Action, Actor, write_audit};
use super::error::StoreError;
use super::handle::Store;
use super::job_row::{JobRow, job_columns, job_row};
use super::rows;
use super::sql::{execute, query_one, query_opt};
use crate::job::{Epoch, Generation, JobId, JobState, WaitReason};
use crate::message::outcome;

/// The transaction in which an action changes a job.
pub type JobTransaction<'a> = Transaction<'a>;

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
    /// The job with this id, only if it is still at this version: what a person has seen is what
    /// the action is for.
    Version {
        /// Id of the job.
        id: JobId,
        /// Its generation.
        generation: Generation,
        /// Its epoch.
        epoch: Epoch,
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
    /// The job is not at the version of [`Target::Version`] any more; nothing was changed.
    MovedOn {
        /// The job.
        job: JobId,
        /// Its present generation.
        generation: Generation,
        /// Its present epoch.
        epoch: Epoch,
        /// Its present state.
        state: JobState,
        /// The stage due now.
        stage: String,
    },
    /// There is no such job.
    NoSuchJob,
}

/// The change of one job by an action.
#[derive(Debug)]
pub enum JobChange {
    /// The job's row was changed.
    Done {
        /// State after the action.
        now: JobState,
        /// The state after the action, for the audit log.
        after: Value,
    },
    /// The job is in the requested state already.
    Already,
    /// The action is not possible; the text says what to do instead.
    Refused(String),
}

/// A job whose row is locked, and its parent's before it.
#[derive(Debug)]
pub struct LockedJob {
    /// Its row.
    pub row: JobRow,
    /// The account that it was configured with.
    pub account: Option<String>,
}

const FIND_KEY: &str =
    "SELECT job_id FROM job_keys WHERE source = $1 AND dedupe_key = $2 AND job_id IS NOT NULL";
const PARENT: &str = "SELECT parent_id FROM jobs WHERE id = $1";
const LOCKED: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", j.account FROM jobs j WHERE j.id = $1 FOR UPDATE OF j"
);

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

impl Target {
    /// Returns whether the job is at the version that is asked for, if one is.
    fn is_at(&self, row: &JobRow) -> bool {
        match self {
            Self::Id(_) | Self::Key { .. } => true,
            Self::Version {
                generation, epoch, ..
            } => (generation.0, epoch.0) == (row.generation, row.epoch),
        }
    }
}

impl Store {
    /// Locks a job, makes a change of it and writes the audit row, in one transaction. `change`
    /// judges the locked row first; if it changes nothing, nothing is written.
    ///
    /// # Errors
    /// [`StoreError::NotPermitted`]; errors of `change`, and [`StoreError`]. Nothing is changed
    /// then.
    pub async fn change_job<E: From<StoreError>>(
        &self,
        actor: &Actor,
        action: Action,
        target: &Target,
        change: impl AsyncFnOnce(&Transaction<'_>, &LockedJob) -> Result<JobChange, E>,
    ) -> Result<ActionResult, E> {
        let mut client = self.client().await?;
        let tx = client.transaction().await.map_err(StoreError::from)?;
        let result = change_job(&tx, actor, action, target, change).await?;
        if let ActionResult::Done { .. } = result {
            tx.commit().await.map_err(StoreError::from)?;
        }
        Ok(result)
    }

    /// Cancels a job that is not done, and its open follow-ups.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel(&self, target: &Target, actor: &Actor) -> Result<ActionResult, StoreError> {
        self.change_job(actor, Action::Cancel, target, async |tx, job| {
            cancel(tx, job).await
        })
        .await
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
        let change = async |tx: &Transaction<'_>, job: &LockedJob| {
            // A job that waits again after the same choice, which was not possible then, runs again.
            if job.row.wait_reason() != Some(WaitReason::Configuration) {
                if job.account.as_deref() == Some(account) {
                    return Ok(JobChange::Already);
                }
                let why = "it does not wait for an account";
                return Ok(JobChange::Refused(why.to_owned()));
            }
            cancel_children(tx, job.row.id).await?;
            execute(tx, CONFIGURE, &[&job.row.id.0, &account, &first_stage]).await?;
            Ok(JobChange::Done {
                now: JobState::Ready,
                after: json!({"state": "ready", "account": account}),
            })
        };
        self.change_job(actor, Action::Configure, target, change)
            .await
    }
}

/// Locks a job, makes a change of it and writes the audit row, in a transaction of the caller.
pub(super) async fn change_job<E: From<StoreError>>(
    tx: &Transaction<'_>,
    actor: &Actor,
    action: Action,
    target: &Target,
    change: impl AsyncFnOnce(&Transaction<'_>, &LockedJob) -> Result<JobChange, E>,
) -> Result<ActionResult, E> {
    actor.permit(action)?;
    let Some(job) = find(tx, target).await? else {
        return Ok(ActionResult::NoSuchJob);
    };
    let row = &job.row;
    if !target.is_at(row) {
        return Ok(ActionResult::MovedOn {
            job: row.id,
            generation: Generation(row.generation),
            epoch: Epoch(row.epoch),
            state: row.state,
            stage: row.stage.clone(),
        });
    }
    match change(tx, &job).await? {
        JobChange::Already => Ok(ActionResult::Already(row.id, row.state)),
        JobChange::Refused(why) => Ok(ActionResult::Refused(row.id, why)),
        JobChange::Done { now, after } => {
            let before = json!({"state": row.state, "wait_reason": row.wait_reason});
            write_audit(tx, actor, action, Some(row.id), &before, &after).await?;
            Ok(ActionResult::Done {
                job: row.id,
                before: row.state,
                now,
            })
        }
    }
}

/// Cancels a locked job, unless it is done, and its open follow-ups.
///
/// # Errors
/// [`StoreError`].
pub async fn cancel(tx: &JobTransaction<'_>, job: &LockedJob) -> Result<JobChange, StoreError> {
    let row = &job.row;
    if row.state.is_done() {
        return Ok(JobChange::Already);
    }
    let children = cancel_children(tx, row.id).await?;
    execute(tx, CANCEL, &[&row.id.0]).await?;
    announce(tx, &[row.id], outcome::CANCELLED, 0.0).await?;
    if let Some(parent) = row.parent
        && rows::child_done(tx, parent).await?
    {
        announce(tx, &[parent], outcome::SUCCEEDED, 0.0).await?;
    }
    Ok(JobChange::Done {
        now: JobState::Cancelled,
        after: json!({"state": "cancelled", "follow_ups_cancelled": children}),
    })
}

/// Cancels the open follow-ups of a locked job, locked in the order of their ids, and returns their
/// number. The caller sets the job's count of them.
///
/// # Errors
/// [`StoreError`].
pub async fn cancel_children(tx: &Transaction<'_>, parent: JobId) -> Result<u64, StoreError> {
    execute(tx, LOCK_CHILDREN, &[&parent.0]).await?;
    execute(tx, CANCEL_CHILDREN, &[&parent.0]).await
}

/// Locks the target, and its parent before it.
async fn find(tx: &Transaction<'_>, target: &Target) -> Result<Option<LockedJob>, StoreError> {
    let id = match target {
        Target::Id(id) | Target::Version { id, .. } => *id,
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
    Ok(Some(LockedJob {
        row: job_row(&row)?,
        account: row.try_get("account")?,
    }))
}
