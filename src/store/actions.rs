//! Actions of people on one job. Each action raises the epoch, which takes a running job from its
//! owner, and writes its audit row in the same transaction.

use deadpool_postgres::Transaction;
use serde_json::{Value, json};
use uuid::Uuid;

use super::announcements::announce;
use super::audit::{Action, Actor, write_audit};
use super::error::StoreError;
use super::handle::Store;
use super::job_row::state_of;
use super::rows;
use super::sql::{execute, query_one, query_opt};
use crate::job::{JobId, JobState, WaitReason};
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
    /// The job.
    pub id: JobId,
    /// Its parent, if it is a follow-up.
    pub parent: Option<JobId>,
    /// Its state.
    pub state: JobState,
    /// The stored word of the reason why it waits; a newer worker may have written it.
    wait_word: Option<String>,
    /// The account that it was configured with.
    pub account: Option<String>,
    /// The code of its last failure.
    pub error_code: Option<String>,
}

impl LockedJob {
    /// Returns why it waits, if this version knows the reason.
    #[must_use]
    pub fn wait_reason(&self) -> Option<WaitReason> {
        self.wait_word.as_deref()?.parse().ok()
    }
}

const FIND_KEY: &str =
    "SELECT job_id FROM job_keys WHERE source = $1 AND dedupe_key = $2 AND job_id IS NOT NULL";
const PARENT: &str = "SELECT parent_id FROM jobs WHERE id = $1";
const LOCKED: &str =
    "SELECT state, wait_reason, account, error_code FROM jobs WHERE id = $1 FOR UPDATE";

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

impl Store {
    /// Locks a job, makes a change of it and writes the audit row, in one transaction. `change`
    /// judges the locked row first; if it changes nothing, nothing is written.
    ///
    /// # Errors
    /// [`StoreError::NotPermitted`]; errors of `change`, and [`StoreError`]. Nothing is changed
    /// then.
    pub async fn change_job(
        &self,
        actor: &Actor,
        action: Action,
        target: &Target,
        change: impl AsyncFnOnce(&Transaction<'_>, &LockedJob) -> Result<JobChange, StoreError>,
    ) -> Result<ActionResult, StoreError> {
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        let result = change_job(&tx, actor, action, target, change).await?;
        if let ActionResult::Done { .. } = result {
            tx.commit().await?;
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
            if job.account.as_deref() == Some(account) {
                return Ok(JobChange::Already);
            }
            if job.wait_reason() != Some(WaitReason::Configuration) {
                let why = "it does not wait for an account";
                return Ok(JobChange::Refused(why.to_owned()));
            }
            cancel_children(tx, job.id).await?;
            execute(tx, CONFIGURE, &[&job.id.0, &account, &first_stage]).await?;
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
pub(super) async fn change_job(
    tx: &Transaction<'_>,
    actor: &Actor,
    action: Action,
    target: &Target,
    change: impl AsyncFnOnce(&Transaction<'_>, &LockedJob) -> Result<JobChange, StoreError>,
) -> Result<ActionResult, StoreError> {
    actor.permit(action)?;
    let Some(job) = find(tx, target).await? else {
        return Ok(ActionResult::NoSuchJob);
    };
    match change(tx, &job).await? {
        JobChange::Already => Ok(ActionResult::Already(job.id, job.state)),
        JobChange::Refused(why) => Ok(ActionResult::Refused(job.id, why)),
        JobChange::Done { now, after } => {
            let before = json!({"state": job.state, "wait_reason": job.wait_word});
            write_audit(tx, actor, action, Some(job.id), &before, &after).await?;
            Ok(ActionResult::Done {
                job: job.id,
                before: job.state,
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
    if job.state.is_done() {
        return Ok(JobChange::Already);
    }
    let children = cancel_children(tx, job.id).await?;
    execute(tx, CANCEL, &[&job.id.0]).await?;
    announce(tx, &[job.id], outcome::CANCELLED, 0.0).await?;
    if let Some(parent) = job.parent
        && rows::child_done(tx, parent).await?
    {
        announce(tx, &[parent], outcome::SUCCEEDED, 0.0).await?;
    }
    Ok(JobChange::Done {
        now: JobState::Cancelled,
        after: json!({"state": "cancelled", "follow_ups_cancelled": children}),
    })
}

/// Cancels the open follow-ups of a job, locked in the order of their ids, and returns their
/// number.
async fn cancel_children(tx: &Transaction<'_>, parent: JobId) -> Result<u64, StoreError> {
    execute(tx, LOCK_CHILDREN, &[&parent.0]).await?;
    execute(tx, CANCEL_CHILDREN, &[&parent.0]).await
}

/// Locks the target, and its parent before it.
async fn find(tx: &Transaction<'_>, target: &Target) -> Result<Option<LockedJob>, StoreError> {
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
    Ok(Some(LockedJob {
        id,
        parent,
        state: state_of(&row)?,
        wait_word: row.try_get("wait_reason")?,
        account: row.try_get("account")?,
        error_code: row.try_get("error_code")?,
    }))
}
