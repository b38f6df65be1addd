//! `dispatch demo`: two hundred jobs, a failing provider and a killed worker on private servers.

use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use crate::devkit::demo::{self, DemoOptions};

/// Run 200 jobs through two workers on private servers, kill one of them, then verify the
/// guarantees
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Keep the servers running at the end, and print how to inspect them
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        demo::run(DemoOptions {
            keep: self.keep,
            json: output.is_json(),
        })
        .await
    }
}
