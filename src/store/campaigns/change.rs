//! Pauses, resumes and aborts a campaign.

use deadpool_postgres::Transaction;
use serde_json::json;

use super::super::audit::{Action, Actor, AuditedChange};
use super::super::error::StoreError;
use super::super::handle::Store;
use super::super::sql::{execute, query_opt};

/// A change of a campaign by a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CampaignChange {
    /// No further item is acted on until it is resumed.
    Pause,
    /// It continues, with waves of 1 and 10 first.
    Resume,
    /// It ends. Items that were acted on keep what was done.
    Abort,
}

/// Result of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CampaignResult {
    /// The campaign was changed.
    Done {
        /// State before.
        before: String,
        /// State now.
        now: &'static str,
    },
    /// It is in this state already; nothing was changed.
    Already(String),
    /// The change is not possible; the text says why.
    Refused(String),
    /// There is no such campaign.
    NoSuchCampaign,
}

/// Waits for a step that is under way.
const LOCKED: &str = "SELECT state FROM campaigns WHERE id = $1 FOR UPDATE";

const CHANGE: &str = "
    UPDATE campaigns SET state = $2, why = left($3, 2000), ramp = 0, next_at = greatest(next_at, clock_timestamp()),
        finished_at = CASE WHEN $2 = 'aborted' THEN now() END
    WHERE id = $1";

impl CampaignChange {
    const fn action(self) -> Action {
        match self {
            Self::Pause => Action::PauseCampaign,
            Self::Resume => Action::ResumeCampaign,
            Self::Abort => Action::AbortCampaign,
        }
    }

    const fn state(self) -> &'static str {
        match self {
            Self::Pause => "paused",
            Self::Resume => "running",
            Self::Abort => "aborted",
        }
    }

    /// Returns what the change means for a campaign in a state, or `None` if it can be made.
    fn obstacle(self, state: &str) -> Option<CampaignResult> {
        let is_resumed = self == Self::Resume && state == "planned";
        if state == self.state() || is_resumed {
            return Some(CampaignResult::Already(state.to_owned()));
        }
        matches!(state, "aborted" | "finished").then(|| {
            CampaignResult::Refused(format!(
                "it is {state}; start another one for the jobs that are left"
            ))
        })
    }
}

impl Store {
    /// Changes the state of a campaign and writes the audit row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change_campaign(
        &self,
        actor: &Actor,
        campaign: i64,
        change: CampaignChange,
    ) -> Result<CampaignResult, StoreError> {
        let make = async |tx: &Transaction<'_>| {
            let unchanged = |answer| AuditedChange {
                answer,
                audit: None,
                gone: None,
            };
            let Some(row) = query_opt(tx, LOCKED, &[&campaign]).await? else {
                return Ok(unchanged(CampaignResult::NoSuchCampaign));
            };
            let before: String = row.try_get("state")?;
            if let Some(answer) = change.obstacle(&before) {
                return Ok(unchanged(answer));
            }
            let now = change.state();
            let why = match change {
                CampaignChange::Pause | CampaignChange::Abort => actor.reason.as_deref(),
                CampaignChange::Resume => None,
            };
            execute(tx, CHANGE, &[&campaign, &now, &why]).await?;
            Ok::<_, StoreError>(AuditedChange {
                audit: Some((
                    json!({"campaign": campaign, "state": before}),
                    json!({"campaign": campaign, "state": now}),
                )),
                answer: CampaignResult::Done { before, now },
                gone: None,
            })
        };
        let (result, _) = self.audited(actor, change.action(), make).await?;
        Ok(result)
    }
}
