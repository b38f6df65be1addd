//! `dispatch jobs`: lists and shows jobs, acts on one, cancels many.

mod actions;
mod by_hand;
mod cancel;
mod explain;
mod list;
mod show;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::output::Output;
use crate::job::JobId;
use crate::store::{JobRow, Store, Target};

/// List, show and explain jobs, and act on them
#[derive(Debug, Subcommand)]
pub(super) enum Jobs {
    List(list::List),
    Show(show::Show),
    Explain(explain::Explain),
    Retry(actions::Retry),
    Cancel(cancel::Cancel),
    Configure(actions::Configure),
    Park(by_hand::Park),
    Rerun(by_hand::Rerun),
    Skip(by_hand::Skip),
    Effect(by_hand::MarkEffect),
    Edit(by_hand::Edit),
    Restore(by_hand::Restore),
    Unmask(by_hand::Unmask),
}

impl Jobs {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Show(show) => show.run(output).await,
            Self::Explain(explain) => explain.run(output).await,
            Self::Retry(retry) => retry.run(output).await,
            Self::Cancel(cancel) => cancel.run(output).await,
            Self::Configure(configure) => configure.run(output).await,
            Self::Park(park) => park.run(output).await,
            Self::Rerun(rerun) => rerun.run(output).await,
            Self::Skip(skip) => skip.run(output).await,
            Self::Effect(effect) => effect.run(output).await,
            Self::Edit(edit) => edit.run(output).await,
            Self::Restore(restore) => restore.run(output).await,
            Self::Unmask(unmask) => unmask.run(output).await,
        }
    }
}

/// Selects a job by its id, or by its source and dedupe key.
#[derive(Debug, Args)]
struct Selector {
    /// Id of the job
    #[arg(value_name = "ID", required_unless_present = "key", conflicts_with_all = ["source", "key"])]
    id: Option<JobId>,
    /// Source of the job; requires --key
    #[arg(long, requires = "key")]
    source: Option<String>,
    /// The job's dedupe_key; requires --source
    #[arg(long, requires = "source")]
    key: Option<String>,
}

impl Selector {
    fn target(&self) -> Target {
        match (self.id, &self.source, &self.key) {
            (Some(id), ..) => Target::Id(id),
            // The parser requires both if there is no id.
            (None, source, key) => Target::Key {
                source: source.clone().unwrap_or_default(),
                dedupe_key: key.clone().unwrap_or_default(),
            },
        }
    }

    async fn row(&self, store: &Store) -> anyhow::Result<JobRow> {
        row(store, &self.target()).await
    }
}

async fn row(store: &Store, target: &Target) -> anyhow::Result<JobRow> {
    let row = store.job_of(target).await?;
    row.context("there is no such job")
}
