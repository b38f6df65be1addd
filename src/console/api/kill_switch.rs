//! Kill switches: a dry run first, then the switch with the same conditions.

use std::time::Duration;

use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::controls::{length, to_controls};
use crate::console::answer;
use crate::console::call::{Call, Changed};
use crate::console::pages;
use crate::console::problem::Problem;
use crate::console::routes::{Access, Route, acts, reads};
use crate::operations::{self, CheckedKillSwitch};
use crate::store::{KillAction, KillPreview, Matcher, PayloadCondition, Role};

pub(in crate::console) const ROUTES: &[Route] = &[
    Route {
        // A condition on the payload asks what a person without this role sees masked.
        access: Access::From {
            role: Role::Admin,
            is_scoped: false,
        },
        ..reads!("preview_kill_switch", "/controls/kill-switch", "Returns which jobs a kill switch would stop; changes nothing", [
            "organization": "jobs of this organization",
            "source": "jobs of this source",
            "account": "jobs with this account",
            "pipeline": "jobs of this pipeline",
            "payload": "conditions on the payload, a PATH=VALUE on each line",
            "action": "park or cancel"
        ], KillPreview, preview, pages::kill_switch::page)
    },
    acts!("place_kill_switch", "/controls/kill-switch", "Parks or cancels the jobs that match before their next stage, for a time", PlaceKillSwitch, false, Switch => Changed, place, to_controls),
];

/// The longest dry run.
const PREVIEW: Duration = Duration::from_secs(8);

/// The conditions of a kill switch; all must hold.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::console) struct Conditions {
    /// The organization.
    pub(in crate::console) organization: Option<String>,
    /// The source; that of a follow-up is the pipeline of its parent.
    pub(in crate::console) source: Option<String>,
    /// The account.
    pub(in crate::console) account: Option<String>,
    /// The pipeline.
    pub(in crate::console) pipeline: Option<String>,
    /// Conditions on the payload, a PATH=VALUE on each line.
    pub(in crate::console) payload: Option<String>,
    /// What becomes of the jobs: `park` by default, or `cancel`.
    pub(in crate::console) action: Option<KillAction>,
}

/// A kill switch to place.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Switch {
    /// As [`Conditions`].
    organization: Option<String>,
    /// As [`Conditions`].
    source: Option<String>,
    /// As [`Conditions`].
    account: Option<String>,
    /// As [`Conditions`].
    pipeline: Option<String>,
    /// As [`Conditions`].
    payload: Option<String>,
    /// What becomes of the jobs.
    action: KillAction,
    /// How long, 1 minute to a week.
    minutes: u32,
    /// Why, for the audit log.
    reason: String,
}

impl Conditions {
    /// Returns the conditions without those that a form leaves empty.
    pub(in crate::console) fn given(self) -> Self {
        let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        Self {
            organization: given(self.organization),
            source: given(self.source),
            account: given(self.account),
            pipeline: given(self.pipeline),
            payload: given(self.payload),
            action: self.action,
        }
    }

    /// Returns whether there is none.
    pub(in crate::console) const fn is_empty(&self) -> bool {
        self.organization.is_none()
            && self.source.is_none()
            && self.account.is_none()
            && self.pipeline.is_none()
            && self.payload.is_none()
    }

    /// Checks the conditions.
    ///
    /// # Errors
    /// `invalid_input`.
    pub(in crate::console) fn checked(self) -> Result<CheckedKillSwitch, Problem> {
        let lines = self.payload.iter().flat_map(|text| text.lines());
        let payload: Result<Vec<_>, String> = lines
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(PayloadCondition::parse)
            .collect();
        Ok(CheckedKillSwitch::new(Matcher {
            organization: self.organization,
            source: self.source,
            account: self.account,
            pipeline: self.pipeline,
            payload: payload.map_err(Problem::invalid_input)?,
            action: self.action.unwrap_or(KillAction::Park),
        })?)
    }
}

async fn preview(call: Call) -> Result<Response, Problem> {
    let asked = call.query::<Conditions>()?.given();
    answer::json(&read_preview(&call, asked).await?)
}

/// Returns what a kill switch would stop. A preview reads many jobs, so there is one at a time.
///
/// # Errors
/// `invalid_input`, `too_busy`, `too_slow`, `postgres_away`.
pub(in crate::console) async fn read_preview(
    call: &Call,
    asked: Conditions,
) -> Result<KillPreview, Problem> {
    let switch = asked.checked()?;
    let Ok(_alone) = call.console.previews.try_acquire() else {
        return Err(Problem::too_busy("another dry run is under way").after(5));
    };
    let read = call.reads().preview_kill_switch(switch.matcher());
    match tokio::time::timeout(PREVIEW, read).await {
        Ok(found) => Ok(found?),
        Err(_) => Err(Problem::too_slow(format!(
            "expected a dry run within {} s",
            PREVIEW.as_secs()
        ))),
    }
}

async fn place(call: &Call) -> Result<Changed, Problem> {
    let Switch {
        organization,
        source,
        account,
        pipeline,
        payload,
        action,
        minutes,
        reason,
    } = call.input()?;
    let conditions = Conditions {
        organization,
        source,
        account,
        pipeline,
        payload,
        action: Some(action),
    };
    let switch = conditions.given().checked()?;
    let actor = call.actor(&reason)?;
    call.once(&actor, async |store, actor| {
        let (id, until) =
            operations::place_kill_switch(store, actor, &switch, length(minutes)).await?;
        Ok(Changed {
            now: json!({"id": id, "until": until.format(&Rfc3339).unwrap_or_default()}),
            ..Changed::plain(true)
        })
    })
    .await
}
