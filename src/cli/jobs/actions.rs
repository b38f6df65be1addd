//! `dispatch jobs retry|configure`: each asks for confirmation, takes a reason and writes an audit
//! row.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::Selector;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::output::Output;
use crate::config::Links;
use crate::operations;
use crate::store::{ActionResult, Actor, JobRow, Store};

/// Make a parked, waiting or delayed job due now, with its attempts reset; its checkpoints are
/// kept
#[derive(Debug, Args)]
pub(in crate::cli) struct Retry {
    #[command(flatten)]
    action: Action,
}

/// Supply the account that a job waits for; the job restarts at its first stage
#[derive(Debug, Args)]
pub(in crate::cli) struct Configure {
    #[command(flatten)]
    action: Action,
    /// Id of the chosen account
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
        print_result(
            output,
            "retry",
            operations::retry(&store, &self.action.actor(), &self.action.job.target()).await?,
        )
    }
}

impl Configure {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = self
            .action
            .agreed(&format!("Use account {} for", self.account))
            .await?;
        let (target, actor) = (self.action.job.target(), self.action.actor());
        print_result(
            output,
            "configure",
            operations::configure(&store, &actor, &target, &self.account).await?,
        )
    }
}

impl Action {
    /// Asks for consent to do `verb` to the job, then returns the store.
    async fn agreed(&self, verb: &str) -> anyhow::Result<Store> {
        self.consent.can_be_had()?;
        let store = connect::store(&self.links).await?;
        self.consent
            .to(&question(verb, &self.job.row(&store).await?))?;
        Ok(store)
    }

    fn actor(&self) -> Actor {
        self.consent.actor()
    }
}

pub(super) fn question(verb: &str, job: &JobRow) -> String {
    format!(
        "{verb} job {} ({} of {}, {} at {})?",
        job.id, job.pipeline, job.organization, job.state, job.stage
    )
}

pub(super) fn print_result(
    output: Output,
    action: &str,
    answer: ActionResult,
) -> anyhow::Result<ExitCode> {
    match answer {
        ActionResult::Done { job, before, now } => {
            let value = json!({"job_id": job, "action": action, "changed": true, "before": before, "now": now});
            output.answer(&value, || format!("job {job}: was {before}, is now {now}"))?;
        }
        ActionResult::Already(job, state) => {
            let value = json!({"job_id": job, "action": action, "changed": false, "before": state, "now": state});
            output.answer(&value, || {
                format!("job {job}: is already {state}; nothing was changed")
            })?;
        }
        ActionResult::Refused(job, why) => bail!("job {job}: {why}"),
        ActionResult::NoSuchJob => bail!("there is no such job"),
        ActionResult::MovedOn {
            job, state, stage, ..
        } => {
            bail!("job {job} has moved on: it is {state} at stage {stage} now; nothing was changed")
        }
    }
    Ok(ExitCode::SUCCESS)
}
