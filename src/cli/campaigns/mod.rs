//! `dispatch campaigns`: bulk actions on a snapshot of jobs, carried out by the workers in waves.

mod change;
mod filter;
mod show;
mod start;

use std::process::ExitCode;

use clap::Subcommand;

use super::output::Output;

/// Preview, start, show, pause, resume or abort bulk actions that workers carry out in waves
#[derive(Debug, Subcommand)]
pub(super) enum Campaigns {
    Preview(start::Preview),
    Start(start::Start),
    List(show::List),
    Show(show::Show),
    Pause(change::Pause),
    Resume(change::Resume),
    Abort(change::Abort),
    Report(show::Report),
}

impl Campaigns {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::Preview(preview) => preview.run(output).await,
            Self::Start(start) => start.run(output).await,
            Self::List(list) => list.run(output).await,
            Self::Show(show) => show.run(output).await,
            Self::Pause(pause) => pause.run(output).await,
            Self::Resume(resume) => resume.run(output).await,
            Self::Abort(abort) => abort.run(output).await,
            Self::Report(report) => report.run().await,
        }
    }
}
