//! Counts the effects that another run of a job's stages may repeat.

use serde::Serialize;

use super::count::CappedCount;
use super::error::StoreError;
use super::handle::Store;
use super::sql::query;
use crate::job::JobId;

/// Effects of one class and stage that happened, or may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectCount {
    /// Class of the effects: K1, K2 or K3.
    pub class: String,
    /// The stage that had them.
    pub stage: String,
    /// Whether they are those of the job's follow-ups.
    pub of_follow_ups: bool,
    /// Their number.
    pub count: CappedCount,
}

/// What another run of some stages may repeat, by class; at most three classes for each stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MayRepeat {
    /// The counts, those of the job itself first.
    pub effects: Vec<EffectCount>,
}

/// Follow-ups are found along their index, and the effects of each by its id.
pub(super) const MAY_REPEAT: &str = "
    SELECT of_follow_ups, class, stage, count(*) AS effects FROM (
        SELECT of_follow_ups, class, stage FROM (
            SELECT false AS of_follow_ups, class, stage, state, maybe_done FROM effects WHERE job_id = $1 AND stage = ANY ($2)
            UNION ALL
            SELECT true, e.class, e.stage, e.state, e.maybe_done
            FROM (SELECT id FROM jobs WHERE parent_id = $1 ORDER BY parent_id LIMIT $3) c
                CROSS JOIN LATERAL (SELECT class, stage, state, maybe_done FROM effects WHERE job_id = c.id LIMIT $3) e
        ) every_one WHERE state <> 'failed' OR maybe_done LIMIT $3
    ) happened GROUP BY of_follow_ups, class, stage ORDER BY of_follow_ups, class, stage";

impl Store {
    /// Counts the effects of `stages` of a job, and those of its follow-ups, that happened or may
    /// have.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn may_repeat(&self, job: JobId, stages: &[&str]) -> Result<MayRepeat, StoreError> {
        let client = self.client().await?;
        let rows = query(&client, MAY_REPEAT, &[&job.0, &stages, &CappedCount::ROWS]).await?;
        let effects = rows.iter().map(|row| {
            Ok(EffectCount {
                class: row.try_get("class")?,
                stage: row.try_get("stage")?,
                of_follow_ups: row.try_get("of_follow_ups")?,
                count: CappedCount::of(row.try_get("effects")?),
            })
        });
        Ok(MayRepeat {
            effects: effects.collect::<Result<_, StoreError>>()?,
        })
    }
}
