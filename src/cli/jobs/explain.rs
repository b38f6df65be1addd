//! `dispatch jobs explain`: explains why a job makes no progress.

use std::process::ExitCode;

use clap::Args;

use super::Selector;
use crate::cli::connect;
use crate::cli::output::{Output, plain};
use crate::config::Links;
use crate::operations;

/// Explain in a sentence the state of one job, its cause and what happens next
#[derive(Debug, Args)]
pub(in crate::cli) struct Explain {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    job: Selector,
}

impl Explain {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let store = connect::store(&self.links).await?;
        let row = self.job.row(&store).await?;
        let explained = operations::explain(&store, &row, operations::Audience::Everything).await?;
        output.answer(&explained, || plain(&explained.explanation))?;
        Ok(ExitCode::SUCCESS)
    }
}
