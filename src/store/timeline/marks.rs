//! Moments on a timeline: effects, actions of people, ends of replicas.

use deadpool_postgres::Client;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tokio_postgres::Row;

use super::super::audit_rows::AuditRow;
use super::super::error::StoreError;
use super::super::sql::query;
use crate::job::JobId;

/// An effect: from its intent until its outcome was known.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct EffectMark {
    /// Its key.
    pub key: String,
    /// The stage.
    pub stage: String,
    /// The job's generation.
    pub generation: i32,
    /// What it changes.
    pub target: String,
    /// Class of the effect: K1, K2 or K3.
    pub class: String,
    /// `in_flight`, `confirmed`, `failed` or `unknown`.
    pub state: String,
    /// Whether it may have happened although its last call failed.
    pub maybe_done: bool,
    /// How often a duplicate became possible.
    pub unknowns: i32,
    /// The provider's name for what was made.
    pub provider_ref: Option<String>,
    /// When the first call was about to be made.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub first_intent_at: OffsetDateTime,
    /// When the last call was about to be made.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub intent_at: OffsetDateTime,
    /// When its last call must have ended.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub deadline_at: OffsetDateTime,
    /// When the outcome of its last call was known.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub settled_at: Option<OffsetDateTime>,
}

impl EffectMark {
    /// Returns whether a person can find out whether it happened.
    #[must_use]
    pub fn is_open(&self, now: OffsetDateTime) -> bool {
        match self.state.as_str() {
            "unknown" => true,
            "in_flight" => self.deadline_at <= now,
            "failed" => self.maybe_done,
            _ => false,
        }
    }
}

/// What a person, or a program for one, did with the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ActionMark {
    /// The number of its row in the audit log.
    pub id: i64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub at: OffsetDateTime,
    /// The actor.
    pub who: String,
    /// The word of the action.
    pub action: String,
    /// The reason.
    pub reason: Option<String>,
}

/// The end of a replica that ran the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EndMark {
    /// The replica.
    pub replica: i64,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub at: OffsetDateTime,
    /// Whether it ended by itself; otherwise it died.
    pub ended_well: bool,
    /// Whether the job was running on it when it died, and nothing was recorded.
    pub was_blamed: bool,
}

/// `$2` effects at most, the newest.
pub(crate) const EFFECTS: &str = "
    SELECT key, stage, generation, target, class, state, maybe_done, unknowns, provider_ref, first_intent_at, intent_at, deadline_at,
        settled_at
    FROM effects WHERE job_id = $1 ORDER BY first_intent_at DESC, key LIMIT $2";

/// The replicas `$2`, and those that died with the job.
pub(crate) const ENDS: &str = "
    SELECT r.id, r.ended_at, r.ended_well, had.was_blamed
    FROM (SELECT id, bool_or(is_blamed) AS was_blamed FROM (
            SELECT unnest(blamed) AS id, true AS is_blamed FROM jobs WHERE id = $1
            UNION ALL SELECT unnest($2::bigint[]), false) every_one
        GROUP BY id LIMIT $3) had
        CROSS JOIN LATERAL (SELECT id, ended_at, ended_well FROM replicas WHERE replicas.id = had.id LIMIT 1) r
    WHERE r.ended_at IS NOT NULL ORDER BY r.ended_at";

impl ActionMark {
    pub(crate) fn of(row: AuditRow) -> Self {
        Self {
            id: row.id,
            at: row.at,
            who: row.who,
            action: row.action,
            reason: row.reason,
        }
    }
}

/// Reads the effects, oldest first.
pub(crate) async fn effects(
    client: &Client,
    job: JobId,
    limit: i64,
) -> Result<Vec<EffectMark>, StoreError> {
    let rows = query(client, EFFECTS, &[&job.0, &limit]).await?;
    rows.iter().rev().map(effect).collect()
}

fn effect(row: &Row) -> Result<EffectMark, StoreError> {
    Ok(EffectMark {
        key: row.try_get("key")?,
        stage: row.try_get("stage")?,
        generation: row.try_get("generation")?,
        target: row.try_get("target")?,
        class: row.try_get("class")?,
        state: row.try_get("state")?,
        maybe_done: row.try_get("maybe_done")?,
        unknowns: row.try_get("unknowns")?,
        provider_ref: row.try_get("provider_ref")?,
        first_intent_at: row.try_get("first_intent_at")?,
        intent_at: row.try_get("intent_at")?,
        deadline_at: row.try_get("deadline_at")?,
        settled_at: row.try_get("settled_at")?,
    })
}

/// Reads the ends of these replicas and of those that died with the job, in the order of time.
pub(crate) async fn ends(
    client: &Client,
    job: JobId,
    replicas: &[i64],
    limit: i64,
) -> Result<Vec<EndMark>, StoreError> {
    let rows = query(client, ENDS, &[&job.0, &replicas, &limit]).await?;
    let ends = rows.iter().map(|row| {
        Ok(EndMark {
            replica: row.try_get("id")?,
            at: row.try_get("ended_at")?,
            ended_well: row.try_get("ended_well")?,
            was_blamed: row.try_get("was_blamed")?,
        })
    });
    ends.collect()
}
