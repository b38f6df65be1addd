//! A server's process: started in its own process group, monitored, and signalled only by ids that
//! certainly belong to it.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// The length of the log's end that an error contains, in bytes.
const LOG_TAIL: usize = 2000;
/// The interval at which a condition is checked.
const POLL: Duration = Duration::from_millis(25);
/// The time limit for a process to end after the last signal.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// The `PATH` of commands. Nothing else of this process' environment is passed on, because
/// variables such as `PGOPTIONS` or `ERL_FLAGS` would change the behavior of a server.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Sends its program a signal when the thread that started it has ended. The guard starts
/// everything from the thread that waits for the guard's end.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A running server. It is killed on drop.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    abrupt: Abrupt,
}

/// The signal that ends a program and its children without delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abrupt {
    /// For a program whose children end with it.
    Kill,
    /// For Postgres, where it means an immediate shutdown: its children have sessions of their
    /// own.
    Quit,
}

impl Abrupt {
    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Quit => Signal::QUIT,
        }
    }

    /// Returns the name of the signal for `setpriv`.
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }
}

/// A program to start, in its own directory and environment, with stdin closed and stdout and
/// stderr in a log.
pub(crate) struct Launch {
    pub(crate) command: Command,
    name: &'static str,
    log: PathBuf,
    abrupt: Abrupt,
}

impl Launch {
    /// Prepares `program` in directory `dir`, with the log `<name>.log` there. If `setpriv` is
    /// available, the program gets the signal `abrupt` when this process is killed.
    pub(crate) fn new(
        name: &'static str,
        program: &Path,
        dir: &Path,
        abrupt: Abrupt,
    ) -> anyhow::Result<Self> {
        let command = if Path::new(SETPRIV).exists() {
            let mut command = Command::new(SETPRIV);
            command
                .args(["--pdeathsig", abrupt.name(), "--"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        Self::of(command, name, dir, abrupt)
    }

    /// As [`Launch::new`], but the program may outlive this process, see [`Process::leave`].
    pub(crate) fn lasting(
        name: &'static str,
        program: &Path,
        dir: &Path,
        abrupt: Abrupt,
    ) -> anyhow::Result<Self> {
        Self::of(Command::new(program), name, dir, abrupt)
    }

    fn of(
        mut command: Command,
        name: &'static str,
        dir: &Path,
        abrupt: Abrupt,
    ) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let open = || {
            File::options()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&log)
        };
        let log_file = open().with_context(|| format!("cannot open the log {}", log.display()))?;
        command
            .env_clear()
            .env("PATH", SEARCH_PATH)
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", dir)
            .current_dir(dir);
        command
            .stdin(Stdio::null())
            .stderr(log_file.try_clone()?)
            .stdout(log_file);
        command.process_group(0);
        Ok(Self {
            command,
            name,
            log,
            abrupt,
        })
    }

    pub(crate) fn spawn(mut self) -> anyhow::Result<Process> {
        let child = self
            .command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        Ok(Process {
            name: self.name,
            child,
            log: self.log,
            abrupt: self.abrupt,
        })
    }

    /// Runs the program to its end, within `limit`.
    pub(crate) async fn run(self, limit: Duration) -> anyhow::Result<()> {
        let name = self.name;
        let mut process = self.spawn()?;
        let ended = tokio::time::timeout(limit, process.child.wait()).await;
        let status =
            ended.with_context(|| format!("{name} took longer than {} s", limit.as_secs()))??;
        if !status.success() {
            bail!(
                "{name} ended with {status}; its log ends with:\n{}",
                log_tail(&process.log)
            );
        }
        Ok(())
    }
}

impl Process {
    /// Waits until `ready` returns true. Fails if the process ends first or is not ready within
    /// `limit`; the error contains the end of its log.
    pub(crate) async fn wait_ready(
        &mut self,
        limit: Duration,
        ready: impl AsyncFn() -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !ready().await {
            self.check_running()?;
            if Instant::now() > deadline {
                bail!(
                    "{} was not ready within {} s; its log ends with:\n{}",
                    self.name,
                    limit.as_secs(),
                    log_tail(&self.log)
                );
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Returns an error with the end of the log if the process has ended.
    pub(crate) fn check_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended by itself ({status}); its log ends with:\n{}",
                self.name,
                log_tail(&self.log)
            );
        }
        Ok(())
    }

    /// Returns the process id, until the process has been waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Leaves the process running, and returns its id.
    pub(crate) fn leave(self) -> Option<u32> {
        let id = self.id();
        std::mem::forget(self);
        id
    }

    /// Sends `signal` and waits up to `limit` for the end; then kills it, as on drop.
    pub(crate) async fn stop(mut self, signal: Signal, limit: Duration) {
        self.signal(signal);
        // In either case, dropping it does the rest.
        let _outcome = tokio::time::timeout(limit, self.child.wait()).await;
    }

    /// Signals the process group. Until the child is reaped, its id, and so its group's, cannot
    /// belong to another process.
    fn signal(&self, signal: Signal) {
        let group = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            // An error means that the group has ended, as intended.
            let _ended = kill_process_group(group, signal);
        }
    }

    fn ended_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(self.abrupt.signal());
            if !self.ended_within(LAST_WAIT) {
                self.signal(Signal::KILL);
                self.ended_within(LAST_WAIT);
            }
        }
    }
}

/// Returns the end of a log file, as far as it can be read.
pub(crate) fn log_tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TAIL);
    String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
}
