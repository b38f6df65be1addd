//! `dispatch simulator` (hidden): the provider simulator as a separate process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::output::raw;
use crate::devkit::simulator::{self, SimulatorOptions};

/// Simulate Azure DevOps, Microsoft Entra, the channels and a mail server until SIGTERM or the end
/// of stdin
#[derive(Debug, Args)]
pub(super) struct Simulator {
    /// Address to listen on; port 0 is any free port
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Witness log; an existing one is continued
    #[arg(long, value_name = "FILE")]
    witness: PathBuf,
    /// JSON file with the initial state
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

impl Simulator {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let options = SimulatorOptions {
            listen: self.listen,
            witness: self.witness,
            state: self.state,
        };
        let mut announced = Ok(());
        simulator::run(options, |line| {
            announced = raw(format!("{line}\n").as_bytes())
        })
        .await?;
        announced?;
        Ok(ExitCode::SUCCESS)
    }
}
