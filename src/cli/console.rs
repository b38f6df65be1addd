//! `dispatch console`: serves the console and its API until a signal stops it.

use std::process::ExitCode;

use clap::Args;

use crate::app;
use crate::config::{ConsoleSettings, Links};

/// Serve the console and its API, which need Postgres only, until a signal
#[derive(Debug, Args)]
pub(super) struct Console {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    settings: ConsoleSettings,
}

impl Console {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        app::run_console(self.links, self.settings).await?;
        Ok(ExitCode::SUCCESS)
    }
}
