//! `dispatch jobs`: lists and shows jobs, acts on one, cancels many.

mod actions;
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

/// List, show, explain, retry, cancel or configure jobs
#[derive(Debug, Subcommand)]
pub(super) enum Jobs {
    List(list::List),
    Show(show::Show),
    Explain(explain::Explain),
    Retry(actions::Retry),
    Cancel(cancel::Cancel),
    Configure(actions::Configure),
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
    let row = match target {
        Target::Id(id) | Target::Version { id, .. } => store.job(*id).await?,
        Target::Key { source, dedupe_key } => store.job_by_key(source, dedupe_key).await?,
    };
    row.context("there is no such job")
}
