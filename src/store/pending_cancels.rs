//! Cancels that arrive before their job. The request is stored as a key without a job, and the
//! intake of the job finds it. The uniqueness of the key serializes the two, in whatever order
//! they arrive.

use serde_json::{Value, json};

use super::actions::{ActionResult, Target};
use super::audit::{Action, Actor, write_audit};
use super::error::StoreError;
use super::handle::Store;
use super::sql::{execute, query_opt};

/// Result of a producer's cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cancelling {
    /// The job exists.
    Answered(ActionResult),
    /// The job does not exist (yet): it is cancelled if it arrives within 30 days.
    Noted,
}

/// A cancel by its job's key.
#[derive(Debug, Clone, Copy)]
pub struct CancelByKey<'a> {
    /// Source of the job.
    pub source: &'a str,
    /// Dedupe key of the job.
    pub dedupe_key: &'a str,
    /// The user that published the cancel, as verified by RabbitMQ.
    pub producer: Option<&'a str>,
    /// Whether the cancel may be stored until its job arrives. Otherwise the answer is
    /// [`ActionResult::NoSuchJob`].
    pub may_note: bool,
}

/// Reuses the key of a job that no longer exists, and an outdated pending cancel. The snapshot of
/// the statement decides whether the job exists, and it may be older than a new key: such a key is
/// left unchanged.
const NOTE: &str = "
    INSERT INTO job_keys AS k (source, dedupe_key, cancelled_by, producer) VALUES ($1, $2, $3, $4)
    ON CONFLICT (source, dedupe_key) DO UPDATE SET job_id = NULL, digest = NULL, cancelled_by = excluded.cancelled_by,
        producer = excluded.producer, created_at = now()
    WHERE CASE WHEN k.job_id IS NULL THEN k.created_at < now() - interval '30 days'
        ELSE k.created_at < now() - interval '1 hour' AND (SELECT true FROM jobs WHERE jobs.id = k.job_id) IS NULL END";

const IS_NOTED: &str =
    "SELECT job_id IS NULL AS noted FROM job_keys WHERE source = $1 AND dedupe_key = $2";

impl Store {
    /// Cancels the job with this key, or stores the cancel for when it arrives: its message may
    /// still be in the queue.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cancel_by_key(
        &self,
        asked: &CancelByKey<'_>,
        actor: &Actor,
    ) -> Result<Cancelling, StoreError> {
        let target = Target::Key {
            source: asked.source.to_owned(),
            dedupe_key: asked.dedupe_key.to_owned(),
        };
        match self.cancel(&target, actor).await? {
            ActionResult::NoSuchJob if asked.may_note && self.note(asked, actor).await? => {
                Ok(Cancelling::Noted)
            }
            // The job has arrived in between, or its key outlives it.
            ActionResult::NoSuchJob => Ok(Cancelling::Answered(self.cancel(&target, actor).await?)),
            answer => Ok(Cancelling::Answered(answer)),
        }
    }

    /// Returns whether the cancel is stored.
    async fn note(&self, asked: &CancelByKey<'_>, actor: &Actor) -> Result<bool, StoreError> {
        let CancelByKey {
            source,
            dedupe_key,
            producer,
            ..
        } = asked;
        let mut client = self.client().await?;
        let tx = client.transaction().await?;
        if execute(&tx, NOTE, &[source, dedupe_key, &actor.who, producer]).await? == 0 {
            let row = query_opt(&tx, IS_NOTED, &[source, dedupe_key]).await?;
            return row.map_or(Ok(false), |row| Ok(row.try_get("noted")?));
        }
        let noted = json!({"source": source, "dedupe_key": dedupe_key, "when": "the job comes"});
        write_audit(&tx, actor, Action::Cancel, None, &Value::Null, &noted).await?;
        tx.commit().await?;
        Ok(true)
    }
}
