//! `dispatch demo`: two hundred jobs, a failing provider and a killed worker, on private servers.

use std::process::ExitCode;

use clap::Args;

use super::output::Output;
use crate::devkit::demo::{self, DemoOptions};

/// Two hundred jobs through two workers on private servers, one of them killed; then everything promised is verified
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Leave everything running at the end, and say how to look around
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(super) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        demo::run(DemoOptions { keep: self.keep, json: output.is_json() }).await
    }
}
