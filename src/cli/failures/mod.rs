//! `dispatch failures`: failure groups, and what people note about them.

mod list;
mod note;
mod show;

use std::process::ExitCode;

use clap::Subcommand;

use super::output::Output;

/// List, show and note failure groups: failures with the same cause
#[derive(Debug, Subcommand)]
pub(super) enum Failures {
    List(list::List),
    Show(show::Show),
    Note(note::Note),
}

impl Failures {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(list) => list.run(output).await,
            Self::Show(show) => show.run(output).await,
            Self::Note(note) => note.run(output).await,
        }
    }
}
