//! Edits the input of a job, or restores an earlier one. The job starts again at its first stage, as
//! a new generation, since its checkpoints came from the other input.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::OperationError;
use super::diff::{PathChange, diff};
use super::possible::{JobAction, obstacle};
use super::restart::restart;
use super::skip::payload;
use crate::job::JobState;
use crate::message::{Inputs, Request, decode_edited, kept, without_secrets};
use crate::pipelines::by_hand::edited_follow_up;
use crate::pipelines::registry;
use crate::store::{
    Action, ActionResult, Actor, JobChange, Json, LockedJob, Store, StoreError, Target,
    Transaction, execute, query_one, query_opt,
};

/// Versions that a job keeps: the first one and the newest.
pub const VERSIONS: i32 = 20;

/// The result of an edit.
#[derive(Debug, Clone, Serialize)]
pub struct Edited {
    /// What became of the job.
    #[serde(skip)]
    pub result: ActionResult,
    /// What differs from the input before.
    pub diff: Vec<PathChange>,
    /// The number under which the input before is kept.
    pub kept_as: Option<i32>,
}

/// Intake keeps the time before which the job does not run, and its deadline, in columns.
const REPLACE: &str = "
    UPDATE jobs SET payload = $2, bytes = octet_length($2::json::text), due_at = greatest(now(), $3::timestamptz),
        deadline = CASE WHEN $4 THEN CASE WHEN $5::timestamptz < now() THEN NULL ELSE $5 END ELSE deadline END
    WHERE id = $1";

const KEEP: &str = "
    INSERT INTO job_inputs (job_id, version, payload, replaced_by)
    SELECT $1, coalesce(max(version), 0) + 1, $2, $3 FROM job_inputs WHERE job_id = $1
    RETURNING version";

const BOUND: &str = "
    DELETE FROM job_inputs WHERE job_id = $1 AND version > 1 AND version <= $2";

const VERSION: &str =
    "SELECT payload::text AS payload FROM job_inputs WHERE job_id = $1 AND version = $2";

/// The input that an action gives a job.
enum New<'a> {
    Document(&'a Value),
    Version(i32),
}

/// Returns what an edit would change. Changes nothing.
///
/// # Errors
/// As [`edit_input`]; [`OperationError::Unknown`] if there is no such job.
pub async fn preview_edit(
    store: &Store,
    target: &Target,
    document: &Value,
) -> Result<Vec<PathChange>, OperationError> {
    let unknown = || OperationError::Unknown("there is no such job".to_owned());
    let row = store.job_of(target).await?.ok_or_else(unknown)?;
    if let Some(why) = obstacle(JobAction::EditInput, &row) {
        return Err(OperationError::NotPossible(why));
    }
    let (present, earlier) = store.inputs(row.id).await?;
    let present = present.ok_or_else(unknown)?;
    let inputs = Inputs {
        present: &present,
        own: earlier.first().map_or(&present, |first| &first.payload),
        secrets: &present,
    };
    Ok(checked(&row.pipeline, inputs, document)?.diff)
}

/// Replaces the input of an open job by `document`, which has the form that [`super::unmask`] shows,
/// and starts the job again. The document is checked as an intake message is, and may name no other
/// organization, account, identity or destination than the input before.
///
/// # Errors
/// [`OperationError::Invalid`] for a document that is refused, and [`OperationError::Store`].
pub async fn edit_input(
    store: &Store,
    actor: &Actor,
    target: &Target,
    document: &Value,
) -> Result<Edited, OperationError> {
    replace(
        store,
        actor,
        Action::EditInput,
        target,
        New::Document(document),
    )
    .await
}

/// Replaces the input of an open job by an earlier one, and starts the job again.
///
/// # Errors
/// [`OperationError::Unknown`] if there is no such version; otherwise as [`edit_input`].
pub async fn restore_input(
    store: &Store,
    actor: &Actor,
    target: &Target,
    version: i32,
) -> Result<Edited, OperationError> {
    replace(
        store,
        actor,
        Action::RestoreInput,
        target,
        New::Version(version),
    )
    .await
}

async fn replace(
    store: &Store,
    actor: &Actor,
    action: Action,
    target: &Target,
    new: New<'_>,
) -> Result<Edited, OperationError> {
    let (mut changes, mut kept_as) = (Vec::new(), None);
    let result = store
        .change_job(actor, action, target, async |tx, job| {
            if let Some(why) = obstacle(JobAction::EditInput, &job.row) {
                return Ok(JobChange::Refused(why));
            }
            let stored = payload(tx, job).await?;
            let own = at_version(tx, job, 1).await?;
            let (document, secrets) = match new {
                New::Document(document) => (document.clone(), stored.clone()),
                New::Version(version) => {
                    let earlier = at_version(tx, job, version).await?;
                    let earlier = earlier.ok_or_else(|| no_version(version))?;
                    (without_secrets(&earlier)?, earlier)
                }
            };
            let inputs = Inputs {
                present: &stored,
                own: own.as_ref().unwrap_or(&stored),
                secrets: &secrets,
            };
            let input = checked(&job.row.pipeline, inputs, &document)?;
            if input.diff.is_empty() {
                return Ok(JobChange::Already);
            }
            let version = keep(tx, job, &stored, &actor.who).await?;
            let cancelled = write(tx, job, &input).await?;
            let paths: Vec<&str> = input.diff.iter().map(|one| one.path.as_str()).collect();
            let after = json!({"state": "ready", "changed": paths, "kept_as": version, "follow_ups_cancelled": cancelled});
            (changes, kept_as) = (input.diff, Some(version));
            let now = JobState::Ready;
            Ok::<_, OperationError>(JobChange::Done { now, after })
        })
        .await?;
    Ok(Edited {
        result,
        diff: changes,
        kept_as,
    })
}

/// A checked input.
struct Input {
    payload: Box<RawValue>,
    diff: Vec<PathChange>,
    /// `None` for a follow-up.
    times: Option<(Option<OffsetDateTime>, Option<OffsetDateTime>)>,
}

fn checked(pipeline: &str, inputs: Inputs<'_>, document: &Value) -> Result<Input, OperationError> {
    let stored = inputs.present;
    let invalid = |error: String| OperationError::Invalid(error);
    let (payload, times) = if registry().intake().name == pipeline {
        let request: Request =
            decode_edited(inputs, document).map_err(|error| invalid(error.to_string()))?;
        let times = (request.not_before, request.deadline);
        (to_raw_value(&request)?, Some(times))
    } else {
        let payload = edited_follow_up(pipeline, inputs.own, document).map_err(invalid)?;
        (payload, None)
    };
    let mut changes = diff(&without_secrets(stored)?, &without_secrets(payload.get())?);
    if changes.is_empty() && *payload.get() != *stored {
        changes = secrets_changed(stored, payload.get())?;
    }
    Ok(Input {
        payload,
        diff: changes,
        times,
    })
}

/// Names the events whose secret is another one.
fn secrets_changed(stored: &str, new: &str) -> Result<Vec<PathChange>, OperationError> {
    let (old, new): (Value, Value) = (serde_json::from_str(stored)?, serde_json::from_str(new)?);
    let changed = diff(&old, &new).into_iter().map(|one| PathChange {
        path: one.path,
        before: None,
        after: None,
    });
    Ok(changed.collect())
}

async fn at_version(
    tx: &Transaction<'_>,
    job: &LockedJob,
    version: i32,
) -> Result<Option<String>, StoreError> {
    match query_opt(tx, VERSION, &[&job.row.id.0, &version]).await? {
        Some(row) => Ok(Some(row.try_get("payload")?)),
        None => Ok(None),
    }
}

fn no_version(version: i32) -> OperationError {
    OperationError::Unknown(format!(
        "the job has no earlier input {version}; use a version that `dispatch jobs unmask` shows"
    ))
}

/// Keeps the input that is replaced, without the token of its interaction, and no more than
/// [`VERSIONS`] in all. Returns its number.
async fn keep(
    tx: &Transaction<'_>,
    job: &LockedJob,
    stored: &str,
    who: &str,
) -> Result<i32, OperationError> {
    let payload = kept(stored)?;
    let id = job.row.id.0;
    let row = query_one(tx, KEEP, &[&id, &Json(payload), &who]).await?;
    let version: i32 = row.try_get("version").map_err(StoreError::from)?;
    execute(tx, BOUND, &[&id, &(version - VERSIONS + 1)]).await?;
    Ok(version)
}

async fn write(
    tx: &Transaction<'_>,
    job: &LockedJob,
    input: &Input,
) -> Result<u64, OperationError> {
    let registry = registry();
    let first = registry.get(&job.row.pipeline).map(|known| known.first());
    let cancelled = restart(tx, job, first.unwrap_or(&job.row.stage), &[]).await?;
    let (not_before, deadline) = input.times.unwrap_or_default();
    let has_times = input.times.is_some();
    let payload = Json(&input.payload);
    execute(
        tx,
        REPLACE,
        &[&job.row.id.0, &payload, &not_before, &has_times, &deadline],
    )
    .await?;
    Ok(cancelled)
}
