//! `dispatch worker`: runs jobs until a signal stops it.

use std::process::ExitCode;

use clap::Args;

use crate::app;
use crate::config::{Links, WorkerSettings};

/// Run jobs until a signal: the first SIGTERM or SIGINT drains, a second one ends at once
#[derive(Debug, Args)]
pub(super) struct Worker {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    settings: WorkerSettings,
}

impl Worker {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        app::run_worker(self.links, self.settings).await?;
        Ok(ExitCode::SUCCESS)
    }
}
