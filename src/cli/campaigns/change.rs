//! `dispatch campaigns pause|resume|abort`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::output::Output;
use crate::config::Links;
use crate::operations;
use crate::store::{CampaignResult, Store};

/// Pause a campaign: no further job is acted on until it is resumed
#[derive(Debug, Args)]
pub(in crate::cli) struct Pause {
    #[command(flatten)]
    action: Action,
}

/// Resume a paused campaign, with waves of 1 and 10 jobs first
#[derive(Debug, Args)]
pub(in crate::cli) struct Resume {
    #[command(flatten)]
    action: Action,
}

/// Abort a campaign for good; what was done to its jobs stays
#[derive(Debug, Args)]
pub(in crate::cli) struct Abort {
    #[command(flatten)]
    action: Action,
}

#[derive(Debug, Args)]
struct Action {
    #[command(flatten)]
    links: Links,
    /// Number of the campaign
    #[arg(value_name = "CAMPAIGN")]
    id: i64,
    #[command(flatten)]
    consent: Consent,
}

impl Pause {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self.action.agreed("Pause").await?;
        let actor = self.action.consent.actor();
        let result = operations::pause_campaign(&store, &actor, self.action.id).await?;
        self.action.print(output, "pause", result)
    }
}

impl Resume {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self.action.agreed("Resume").await?;
        let actor = self.action.consent.actor();
        let result = operations::resume_campaign(&store, &actor, self.action.id).await?;
        self.action.print(output, "resume", result)
    }
}

impl Abort {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self.action.agreed("Abort").await?;
        let actor = self.action.consent.actor();
        let result = operations::abort_campaign(&store, &actor, self.action.id).await?;
        self.action.print(output, "abort", result)
    }
}

impl Action {
    /// Asks for consent to do `verb` to the campaign, then returns the store.
    async fn agreed(&self, verb: &str) -> anyhow::Result<Store> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent.to(&format!("{verb} campaign {}?", self.id))?;
        Ok(store)
    }

    fn print(
        &self,
        output: Output,
        action: &str,
        result: CampaignResult,
    ) -> anyhow::Result<ExitCode> {
        let id = self.id;
        match result {
            CampaignResult::Done { before, now } => {
                let value = json!({"campaign": id, "action": action, "changed": true, "before": before, "now": now});
                output.answer(&value, || {
                    format!("campaign {id}: was {before}, is now {now}")
                })?;
            }
            CampaignResult::Already(state) => {
                let value = json!({"campaign": id, "action": action, "changed": false, "before": state, "now": state});
                output.answer(&value, || {
                    format!("campaign {id}: is already {state}; nothing was changed")
                })?;
            }
            CampaignResult::Refused(why) => bail!("campaign {id}: {why}"),
            CampaignResult::NoSuchCampaign => bail!("there is no such campaign"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
