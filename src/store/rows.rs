//! How a commit changes the rows of a job's follow-ups and of its parent.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use serde_json::Value;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::error::StoreError;
use super::sql::{execute, query_opt};
use crate::engine::Child;
use crate::job::{Job, JobId, ReplicaId};

/// The first stage of each pipeline, by name.
pub type FirstStages = BTreeMap<&'static str, &'static str>;

const LOCK: &str = "SELECT id FROM jobs WHERE id = $1 FOR UPDATE";

/// The creator wakes the first follow-ups; the waker wakes the others in fair order among all
/// organizations.
const INSERT_CHILDREN: &str = "
    INSERT INTO jobs (id, pipeline, parent_id, source, dedupe_key, organization, schema, payload, traceparent, tracestate, deadline,
        producer, bytes, state, stage, woken_at, woken_by)
    SELECT child.id, child.pipeline, parent.id, parent.source, child.dedupe_key, parent.organization, 1, child.payload,
        parent.traceparent, parent.tracestate, parent.deadline, parent.producer,
        octet_length(child.payload::text), 'ready', child.stage, CASE WHEN child.number <= $7 THEN now() END,
        CASE WHEN child.number <= $7 THEN $8::bigint END
    FROM jobs parent, unnest($1::uuid[], $2::text[], $3::text[], $4::json[], $5::text[]) WITH ORDINALITY
        AS child (id, pipeline, dedupe_key, payload, stage, number)
    WHERE parent.id = $6";

/// Follow-ups that their creator wakes.
const WOKEN_AT_ONCE: usize = 32;
/// Maximum number of follow-ups of one job.
const CHILDREN_LIMIT: usize = 10_000;

/// Counts some open follow-ups of a parent as done. A parent that waits for nothing else has
/// succeeded.
macro_rules! children_done {
    ($done:literal) => {
        concat!(
            "open_children = greatest(open_children - ",
            $done,
            ", 0), state = CASE WHEN open_children <= ",
            $done,
            " AND wait_reason = 'children' THEN 'succeeded' ELSE state END, finished_at = CASE WHEN open_children <= ",
            $done,
            " AND wait_reason = 'children' THEN now() ELSE finished_at END, wait_key = CASE WHEN open_children <= ",
            $done,
            " AND wait_reason = 'children' THEN NULL ELSE wait_key END, wait_reason = CASE WHEN open_children <= ",
            $done,
            " AND wait_reason = 'children' THEN NULL ELSE wait_reason END, last_progress_at = now()"
        )
    };
}
pub(super) use children_done;

const CHILD_DONE: &str = concat!(
    "UPDATE jobs SET ",
    children_done!("1"),
    " WHERE id = $1 AND open_children > 0 RETURNING state = 'succeeded' AND open_children = 0 AS done"
);

/// Locks a row until the transaction ends.
pub(super) async fn lock(tx: &Transaction<'_>, id: JobId) -> Result<(), StoreError> {
    query_opt(tx, LOCK, &[&id.0]).await?;
    Ok(())
}

/// Inserts a job's follow-ups. Returns those that the creator, `waker`, wakes.
pub(super) async fn insert_children(
    tx: &Transaction<'_>,
    job: &Job,
    waker: ReplicaId,
    children: &[Child],
    first_stages: &FirstStages,
) -> Result<Vec<(JobId, String)>, StoreError> {
    if children.is_empty() {
        return Ok(Vec::new());
    }
    if children.len() > CHILDREN_LIMIT {
        return Err(StoreError::Row(format!(
            "expected at most {CHILDREN_LIMIT} follow-ups of a job, got {}",
            children.len()
        )));
    }
    let ids: Vec<Uuid> = children
        .iter()
        .map(|child| JobId::of_child(job.id, job.generation, &child.target).0)
        .collect();
    let pipelines: Vec<&str> = children.iter().map(|child| child.pipeline).collect();
    let keys: Vec<String> = children
        .iter()
        .map(|child| format!("{}/{}", job.id, child.target))
        .collect();
    let payloads: Vec<Json<&Value>> = children.iter().map(|child| Json(&child.payload)).collect();
    let first = |pipeline: &&str| {
        let first = first_stages.get(pipeline).copied();
        first.ok_or_else(|| StoreError::Row(format!("there is no pipeline `{pipeline}`")))
    };
    let stages: Vec<&str> = pipelines.iter().map(first).collect::<Result<_, _>>()?;
    let woken = i64::try_from(WOKEN_AT_ONCE).unwrap_or(i64::MAX);
    execute(
        tx,
        INSERT_CHILDREN,
        &[
            &ids, &pipelines, &keys, &payloads, &stages, &job.id.0, &woken, &waker.0,
        ],
    )
    .await?;
    Ok(ids
        .into_iter()
        .map(JobId)
        .zip(pipelines.into_iter().map(str::to_owned))
        .take(WOKEN_AT_ONCE)
        .collect())
}

/// Counts one follow-up as done. Returns whether it was the last one and the parent has succeeded.
pub(super) async fn child_done(tx: &Transaction<'_>, parent: JobId) -> Result<bool, StoreError> {
    match query_opt(tx, CHILD_DONE, &[&parent.0]).await? {
        Some(row) => Ok(row.try_get("done")?),
        None => Ok(false),
    }
}
