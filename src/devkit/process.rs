//! A server's process: started in its own process group, watched, and stopped only by ids that are certainly its own.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// How much of a log an error shows, in bytes.
const LOG_TAIL: usize = 2000;
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(25);
/// How long a process may take to end after the last signal.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Where commands look for programs: nothing else of our own environment reaches them, as variables such as `PGOPTIONS` or
/// `ERL_FLAGS` would change what a server does.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Passes a signal on to its program when the thread that started it has ended. The guard starts everything from the thread
/// in which it waits for its end.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A running server. Dropped, it is stopped at once.
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
    /// For Postgres, whose immediate shutdown it is: its children have sessions of their own.
    Quit,
}

impl Abrupt {
    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Quit => Signal::QUIT,
        }
    }

    /// As `setpriv` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }
}

/// A server or a program that prepares one, to be started: in a directory and with an environment of its own, nothing on stdin,
/// stdout and stderr in a log.
pub(crate) struct Launch {
    pub(crate) command: Command,
    name: &'static str,
    log: PathBuf,
    abrupt: Abrupt,
}

impl Launch {
    /// `program` in directory `dir`, with its log in there, called `<name>.log`. It gets the signal `abrupt` too if we are
    /// killed ourselves, where `setpriv` is there to arrange for it.
    pub(crate) fn new(name: &'static str, program: &Path, dir: &Path, abrupt: Abrupt) -> anyhow::Result<Self> {
        let command = if Path::new(SETPRIV).exists() {
            let mut command = Command::new(SETPRIV);
            command.args(["--pdeathsig", abrupt.name(), "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        Self::of(command, name, dir, abrupt)
    }

    /// As [`Launch::new`], but it may outlive us, see [`Process::leave`].
    pub(crate) fn lasting(name: &'static str, program: &Path, dir: &Path, abrupt: Abrupt) -> anyhow::Result<Self> {
        Self::of(Command::new(program), name, dir, abrupt)
    }

    fn of(mut command: Command, name: &'static str, dir: &Path, abrupt: Abrupt) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let open = || File::options().append(true).create(true).mode(0o600).open(&log);
        let log_file = open().with_context(|| format!("cannot open the log {}", log.display()))?;
        command.env_clear().env("PATH", SEARCH_PATH).env("LC_ALL", "C.UTF-8").env("HOME", dir).current_dir(dir);
        command.stdin(Stdio::null()).stderr(log_file.try_clone()?).stdout(log_file);
        command.process_group(0);
        Ok(Self { command, name, log, abrupt })
    }

    /// Starts it.
    pub(crate) fn spawn(mut self) -> anyhow::Result<Process> {
        let child = self.command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(Process { name: self.name, child, log: self.log, abrupt: self.abrupt })
    }

    /// Runs it to its end, within `limit`.
    pub(crate) async fn run(self, limit: Duration) -> anyhow::Result<()> {
        let name = self.name;
        let mut process = self.spawn()?;
        let ended = tokio::time::timeout(limit, process.child.wait()).await;
        let status = ended.with_context(|| format!("{name} took longer than {} s", limit.as_secs()))??;
        if !status.success() {
            bail!("{name} ended with {status}; its log ends with:\n{}", log_tail(&process.log));
        }
        Ok(())
    }
}

impl Process {
    /// Waits until `ready` says so. An error if the process ends first, or is not ready within `limit`; both show the end of
    /// its log.
    pub(crate) async fn wait_ready(&mut self, limit: Duration, ready: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !ready().await {
            self.check_running()?;
            if Instant::now() > deadline {
                bail!("{} was not ready within {} s; its log ends with:\n{}", self.name, limit.as_secs(), log_tail(&self.log));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// An error with the end of its log, if it has ended.
    pub(crate) fn check_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself ({status}); its log ends with:\n{}", self.name, log_tail(&self.log));
        }
        Ok(())
    }

    /// Its process id, while it has not been waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Lets it run on after us; its id, for whoever is to end it.
    pub(crate) fn leave(self) -> Option<u32> {
        let id = self.id();
        std::mem::forget(self);
        id
    }

    /// Sends `signal` and waits up to `limit` for the end; after that it is stopped at once, as when dropped.
    pub(crate) async fn stop(mut self, signal: Signal, limit: Duration) {
        self.signal(signal);
        // Whether it ended or not, dropping it does the rest.
        let _outcome = tokio::time::timeout(limit, self.child.wait()).await;
    }

    /// Signals the process group. While the child is not reaped, its id, and so its group's, cannot belong to another.
    fn signal(&self, signal: Signal) {
        let group = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            // A group that has just ended is what is wanted.
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

/// The end of a log file, as far as it can be read.
pub(crate) fn log_tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let start = bytes.len().saturating_sub(LOG_TAIL);
    String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
}
