//! `dispatch jobs retry|configure`: each asks first, takes a reason, and leaves an audit row.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::Selector;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::output::Output;
use crate::config::Links;
use crate::store::{ActionResult, Actor, JobRow, Store};

/// Make a parked, waiting or later-due job due now, with fresh attempts; its checkpoints stay
#[derive(Debug, Args)]
pub(in crate::cli) struct Retry {
    #[command(flatten)]
    action: Action,
}

/// Supply the account that a job waits for; it begins again at its first stage
#[derive(Debug, Args)]
pub(in crate::cli) struct Configure {
    #[command(flatten)]
    action: Action,
    /// The chosen account's id
    #[arg(long, value_name = "ID")]
    account: String,
}

#[derive(Debug, Args)]
struct Action {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    job: Selector,
    #[command(flatten)]
    consent: Consent,
}

impl Retry {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self.action.agreed("Retry").await?;
        told(output, "retry", store.retry(&self.action.job.target(), &self.action.actor()).await?)
    }
}

impl Configure {
    /// The stage at which a job begins again: the first one of the only pipeline that takes an account.
    const FIRST_STAGE: &str = "check_account";

    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self.action.agreed(&format!("Give the account {} to", self.account)).await?;
        let (target, actor) = (self.action.job.target(), self.action.actor());
        told(output, "configure", store.configure(&target, &self.account, Self::FIRST_STAGE, &actor).await?)
    }
}

impl Action {
    /// The store, once somebody has agreed to do `verb` to the job.
    async fn agreed(&self, verb: &str) -> anyhow::Result<Store> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent.to(&question(verb, &self.job.row(&store).await?))?;
        Ok(store)
    }

    fn actor(&self) -> Actor {
        self.consent.actor()
    }
}

pub(super) fn question(verb: &str, job: &JobRow) -> String {
    format!("{verb} job {} ({} of {}, {} at {})?", job.id, job.pipeline, job.organization, job.state, job.stage)
}

pub(super) fn told(output: Output, action: &str, answer: ActionResult) -> anyhow::Result<ExitCode> {
    match answer {
        ActionResult::Done { job, before, now } => {
            let value = json!({"job_id": job, "action": action, "changed": true, "before": before, "now": now});
            output.answer(&value, || format!("job {job}: was {before}, is {now}"))?;
        }
        ActionResult::Already(job, state) => {
            let value = json!({"job_id": job, "action": action, "changed": false, "before": state, "now": state});
            output.answer(&value, || format!("job {job}: is {state} already, nothing was changed"))?;
        }
        ActionResult::Refused(job, why) => bail!("job {job}: {why}"),
        ActionResult::NoSuchJob => bail!("there is no such job"),
    }
    Ok(ExitCode::SUCCESS)
}
