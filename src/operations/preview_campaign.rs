//! Shows what a campaign would do, before it is started.

use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::OperationError;
use super::possible::{park_obstacle, retry_obstacle};
use super::start_campaign::not_started;
use crate::job::JobState;
use crate::store::{
    BulkAction, CampaignFilter, CampaignJob, CappedCount, HoldRow, StateCount, Store,
    UncertainEffects,
};

/// Maximum number of holds in a preview.
const HOLDS: usize = 20;

/// What a campaign would do. `refused`, `effects` and `holds` concern its first 10,000 jobs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CampaignPreview {
    /// Jobs that match.
    pub count: CappedCount,
    /// Whether there are more jobs than the 10,000 that were looked at. A campaign looks at 100,000.
    pub is_partial: bool,
    /// The oldest jobs, at most ten.
    pub sample: Vec<CampaignJob>,
    /// Jobs that would be refused, by the reason.
    pub refused: Vec<RefusedJobs>,
    /// Effects that may happen twice, by class.
    pub effects: Vec<UncertainEffects>,
    /// Holds in force that concern the jobs' organizations, at most 20.
    pub holds: Vec<HoldInTheWay>,
}

/// Jobs that a campaign would not change.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RefusedJobs {
    /// Why, and what to do instead.
    pub why: String,
    /// Their number.
    pub jobs: i64,
}

/// A hold that jobs of a campaign may meet.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HoldInTheWay {
    /// The held destination.
    pub scope: String,
    /// Why it is held.
    pub reason: String,
    /// The hold's end.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String")]
    pub until: OffsetDateTime,
}

/// Returns what a campaign with this action and filter would do. Nothing is changed.
///
/// # Errors
/// [`OperationError::Invalid`] if the filter is not valid; [`OperationError::Store`].
pub async fn preview_campaign(
    store: &Store,
    action: BulkAction,
    filter: &CampaignFilter,
) -> Result<CampaignPreview, OperationError> {
    let jobs = store
        .preview_campaign(filter, action.repeats_effects())
        .await?
        .map_err(not_started)?;
    let holds = if action.repeats_effects() {
        store.holds().await?
    } else {
        Vec::new()
    };
    let is_in_the_way = |hold: &HoldRow| {
        let of = hold.scope.split('|').next().unwrap_or_default();
        of == "*"
            || jobs
                .organizations
                .iter()
                .any(|organization| organization == of)
    };
    Ok(CampaignPreview {
        count: jobs.count,
        is_partial: jobs.is_partial,
        refused: refused(action, &jobs.states),
        effects: jobs.effects,
        holds: holds
            .into_iter()
            .filter(is_in_the_way)
            .take(HOLDS)
            .map(|hold| HoldInTheWay {
                scope: hold.scope,
                reason: hold.reason,
                until: hold.expires_at,
            })
            .collect(),
        sample: jobs.sample,
    })
}

fn refused(action: BulkAction, states: &[StateCount]) -> Vec<RefusedJobs> {
    let mut refused: Vec<RefusedJobs> = Vec::new();
    for count in states {
        let Some(why) = obstacle(action, count) else {
            continue;
        };
        match refused.iter_mut().find(|refused| refused.why == why) {
            Some(same) => same.jobs += count.jobs,
            None => refused.push(RefusedJobs {
                why,
                jobs: count.jobs,
            }),
        }
    }
    refused
}

/// Returns why the action on one such job changes nothing.
fn obstacle(action: BulkAction, count: &StateCount) -> Option<String> {
    let is_already = match action {
        BulkAction::Retry => count.state == JobState::Running,
        BulkAction::Cancel => count.state.is_done(),
        BulkAction::Park => count.state == JobState::Parked,
    };
    if is_already {
        return Some(format!(
            "it is {} already; nothing was changed",
            count.state
        ));
    }
    match action {
        BulkAction::Retry => retry_obstacle(count.state, count.waits_for),
        BulkAction::Cancel => None,
        BulkAction::Park => park_obstacle(count.state, count.waits_for),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::WaitReason;

    #[test]
    fn the_preview_refuses_what_the_action_on_one_job_refuses() {
        let count = |state, waits_for, jobs| StateCount {
            state,
            waits_for,
            jobs,
        };
        let states = [
            count(JobState::Parked, None, 5),
            count(JobState::Running, None, 1),
            count(JobState::Succeeded, None, 2),
            count(JobState::Waiting, Some(WaitReason::Children), 3),
            count(JobState::Waiting, Some(WaitReason::Hold), 4),
        ];
        let jobs = |action| -> Vec<i64> {
            refused(action, &states)
                .iter()
                .map(|refused| refused.jobs)
                .collect()
        };
        assert_eq!(jobs(BulkAction::Retry), [1, 2, 3]);
        assert_eq!(jobs(BulkAction::Cancel), [2]);
        assert_eq!(jobs(BulkAction::Park), [5, 2, 3]);
    }
}
