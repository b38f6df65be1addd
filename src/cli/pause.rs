//! `dispatch pause` and `dispatch resume`: stops all jobs for a time.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::connect;
use super::consent::Consent;
use super::duration::of_control;
use super::output::{Output, when};
use crate::config::Links;
use crate::operations;

/// Pause all jobs: no worker starts a stage until the pause ends; messages still become jobs
#[derive(Debug, Args)]
pub(super) struct Pause {
    #[command(flatten)]
    links: Links,
    /// Duration of the pause: 90s, 10m, 2h, 7d; at most a week
    #[arg(long = "for", default_value = "1h", value_parser = of_control, value_name = "LENGTH")]
    length: Duration,
    #[command(flatten)]
    consent: Consent,
}

/// End the pause; the jobs that wait for it continue, a few at a time
#[derive(Debug, Args)]
pub(super) struct Resume {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    consent: Consent,
}

impl Pause {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let actor = self.consent.actor_with_reason()?;
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent.to("Pause the jobs of all organizations?")?;
        let until = operations::pause(&store, &actor, self.length).await?;
        let value = json!({"action": "pause", "until": when(until)});
        output.answer(&value, || {
            format!("All jobs are paused until {}", when(until))
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Resume {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let actor = self.consent.actor_with_reason()?;
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent.to("End the pause?")?;
        let ended = operations::resume(&store, &actor).await?;
        let value = json!({"action": "resume", "ended": ended});
        output.answer(&value, || {
            "The pause has ended; the jobs continue, a few at a time".to_owned()
        })?;
        Ok(ExitCode::SUCCESS)
    }
}
