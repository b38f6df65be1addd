//! The simulator as a separate process, so that nothing that happens to a worker affects the
//! witness log.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::client::SimulatorClient;

/// The time limit of a start.
const START: Duration = Duration::from_secs(30);

/// A running simulator. It ends when this is dropped, and when this process ends for any reason,
/// because its stdin then closes.
#[derive(Debug)]
pub struct SimulatorProcess {
    /// The base URL of every provider.
    pub url: String,
    /// The mail server's URL.
    pub smtp_url: String,
    /// The client for admin calls.
    pub client: SimulatorClient,
    /// The process. Closing its stdin stops the simulator.
    pub child: Child,
}

#[derive(Deserialize)]
struct Announcement {
    url: String,
    smtp: String,
}

impl SimulatorProcess {
    /// Starts `binary simulator` on a free loopback port and waits until it serves.
    ///
    /// # Errors
    /// If it cannot be started or does not announce its URL within 30 s.
    pub async fn start(binary: &Path, witness: &Path) -> anyhow::Result<Self> {
        Self::start_logging(binary, witness, Stdio::inherit()).await
    }

    /// As [`SimulatorProcess::start`], with its log written to `log` instead of this process'
    /// stderr.
    ///
    /// # Errors
    /// As [`SimulatorProcess::start`].
    pub async fn start_logging(binary: &Path, witness: &Path, log: Stdio) -> anyhow::Result<Self> {
        let mut command = Command::new(binary);
        command
            .args(["simulator", "--listen", "127.0.0.1:0", "--witness"])
            .arg(witness);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        // Not in the terminal's foreground group, so that Ctrl-C reaches only the holder.
        command.process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {} simulator", binary.display()))?;
        let stdout = child
            .stdout
            .take()
            .context("the simulator's stdout was piped just above")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START, lines.next_line())
            .await
            .context("the simulator did not announce its URL")??;
        let line = line.context("the simulator ended before it announced its URL")?;
        let Announcement { url, smtp } =
            serde_json::from_str(&line).with_context(|| format!("the announcement {line:?}"))?;
        let client = SimulatorClient::new(url.clone())?;
        Ok(Self {
            url,
            smtp_url: smtp,
            client,
            child,
        })
    }

    /// Leaves it running after this process. SIGTERM to the returned process id stops it.
    ///
    /// # Errors
    /// If it does not answer, or has ended.
    pub async fn detach(self) -> anyhow::Result<u32> {
        self.client.detach().await?;
        let pid = self.child.id().context("the simulator has ended")?;
        // Dropping it would kill it.
        std::mem::forget(self.child);
        Ok(pid)
    }

    /// Closes its stdin and waits until it has ended.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        self.child
            .wait()
            .await
            .context("waiting for the simulator to end")?;
        Ok(())
    }
}
