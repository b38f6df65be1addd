//! The guard: a process that owns the private servers and stops them when the process that started
//! it is gone.
//!
//! It implements the hidden subcommand `dispatch guard`. The first line on stdin is [`Options`]; the first line on stdout
//! is [`Started`] or `{"error":"…"}`. Further lines on stdin are [`Request`]s, each answered by one [`GuardReply`] line. Messages
//! for people go to stderr, one line each. The end of stdin, SIGTERM or SIGINT ends the guard; a holder killed by SIGKILL closes
//! its end of the pipe too. A parent-death signal would not do: it fires when the spawning *thread* ends.

use std::cell::Cell;
use std::fs::Permissions;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::install::{self, Programs, Wanted};
use super::postgres::Postgres;
use super::rabbitmq::RabbitMq;

/// The number of attempts to remove the data, `REMOVE_PAUSE` apart.
const REMOVE_TRIES: usize = 20;
const REMOVE_PAUSE: Duration = Duration::from_millis(100);

/// The servers to start: the first line on stdin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Start Postgres.
    pub postgres: bool,
    /// Start RabbitMQ.
    pub rabbitmq: bool,
    /// Keep running after the end of stdin, until a signal.
    #[serde(default)]
    pub keep: bool,
    /// The folder for all data. The guard creates it, so it must not exist, and removes it at the
    /// end. Default: a new one among the temporary files.
    #[serde(default)]
    pub dir: Option<PathBuf>,
}

/// The addresses of the servers: the first line on stdout. URLs contain passwords; a server that
/// was not requested has none.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// `postgres://postgres:PASSWORD@127.0.0.1:PORT/postgres`, the superuser.
    pub database_url: Option<String>,
    /// `amqp://USER:PASSWORD@127.0.0.1:PORT/%2f`, an administrator.
    pub amqp_url: Option<String>,
    /// `http://USER:PASSWORD@127.0.0.1:PORT`, RabbitMQ's management API.
    pub management_url: Option<String>,
    /// The folder for all data and logs.
    pub dir: PathBuf,
}

/// A line on stdin after the servers have started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Returned in the answer.
    #[serde(default)]
    pub id: u64,
    pub cmd: Command,
}

/// A command to the guard. A command that starts a server is answered when the server accepts
/// connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Stop RabbitMQ gracefully and start it again on the same ports and data.
    RestartRabbitmq,
    /// Stop RabbitMQ gracefully.
    StopRabbitmq,
    /// Stop RabbitMQ as a crash would.
    CrashRabbitmq,
    /// Start RabbitMQ again.
    StartRabbitmq,
    /// Set RabbitMQ's memory alarm, so that it accepts no messages.
    AlarmRabbitmq,
    /// Clear the alarm.
    CalmRabbitmq,
    /// Suspend the queues of RabbitMQ whose names end in `.suspended`: they accept messages and
    /// confirm none.
    SuspendQueues,
    /// Resume these queues.
    ResumeQueues,
    /// Stop Postgres as a crash would and start it again on the same port and data.
    RestartPostgres,
    /// Stop Postgres gracefully, closing its clients' connections.
    StopPostgres,
    /// Stop Postgres as a crash would.
    CrashPostgres,
    /// Start Postgres again.
    StartPostgres,
    /// Freeze every process of Postgres: it accepts connections and sends nothing.
    FreezePostgres,
    /// Resume these processes.
    ThawPostgres,
    /// From now on, keep running after the end of stdin, until a signal.
    Detach,
}

/// The answer to one [`Request`]: `{"id":1,"ok":true}` or `{"id":1,"error":"…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardReply {
    /// Id of the request; 0 if it could not be parsed.
    #[serde(default)]
    pub id: u64,
    /// The result.
    #[serde(flatten)]
    pub outcome: GuardOutcome,
}

/// The result of a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardOutcome {
    /// Done (always `true`).
    Ok(bool),
    /// The reason for the failure.
    Error(String),
}

/// Runs the guard until it must end, and returns when the servers have stopped and their data are
/// gone. Builds its own runtime, so it must be called outside of any; and from the main thread,
/// because the servers are also stopped when the thread that started them ends (after SIGKILL to
/// the guard; their data remain then).
///
/// # Errors
/// The options cannot be parsed, or a server cannot be installed or started. The error is also
/// written to stdout.
pub fn run() -> anyhow::Result<()> {
    // Leave the terminal's session, so that Ctrl-C reaches only the holder, and the end of stdin
    // decides. This fails for the leader of a process group, which its starter has already
    // separated.
    let _leader = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot build a runtime")?;
    let outcome = runtime.block_on(serve());
    // An installation may be in progress: apt finishes by itself.
    runtime.shutdown_background();
    outcome
}

async fn serve() -> anyhow::Result<()> {
    let served = start_and_serve().await;
    if let Err(error) = &served {
        write_line(&GuardOutcome::Error(format!("{error:#}")));
        bail!("the servers did not start; the line on stdout has the reason");
    }
    served
}

async fn start_and_serve() -> anyhow::Result<()> {
    let (mut lines, holder_gone) = read_stdin();
    let line = lines
        .recv()
        .await
        .context("stdin ended before the line with the options")?;
    let options: Options = serde_json::from_str(&line)
        .context("expected a first line like {\"postgres\":true,\"rabbitmq\":true}")?;
    let kept = Cell::new(options.keep);
    let mut end = End {
        holder_gone,
        term: signal(SignalKind::terminate())?,
        int: signal(SignalKind::interrupt())?,
    };
    let mut fleet = tokio::select! {
        started = Fleet::start(&options) => started?,
        () = end.wanted(&kept) => return Ok(()),
    };
    write_line(&fleet.started());
    tokio::select! {
        () = end.wanted(&kept) => {}
        () = answer_all(&mut lines, &mut fleet, &kept) => {}
    }
    // Kill the servers: their data are removed too, and the next run must not wait.
    drop(fleet);
    Ok(())
}

/// Answers requests as they arrive; never returns.
async fn answer_all(
    lines: &mut mpsc::UnboundedReceiver<String>,
    fleet: &mut Fleet,
    kept: &Cell<bool>,
) {
    while let Some(line) = lines.recv().await {
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(Request {
                id,
                cmd: Command::Detach,
            }) => {
                kept.set(true);
                GuardReply {
                    id,
                    outcome: GuardOutcome::Ok(true),
                }
            }
            Ok(Request { id, cmd }) => GuardReply {
                id,
                outcome: fleet.obey(cmd).await.into(),
            },
            Err(error) => GuardReply {
                id: 0,
                outcome: GuardOutcome::Error(format!(
                    "expected a request like {{\"cmd\":\"restart_rabbitmq\"}}: {error}"
                )),
            },
        };
        write_line(&answer);
    }
    std::future::pending().await
}

impl From<anyhow::Result<()>> for GuardOutcome {
    fn from(result: anyhow::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Ok(true),
            Err(error) => Self::Error(format!("{error:#}")),
        }
    }
}

/// The conditions that end the guard.
struct End {
    holder_gone: CancellationToken,
    term: Signal,
    int: Signal,
}

impl End {
    async fn wanted(&mut self, kept: &Cell<bool>) {
        let alone = async {
            self.holder_gone.cancelled().await;
            if kept.get() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = alone => {}
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// The servers. On drop they are killed, and then their folder is removed.
struct Fleet {
    postgres: Option<Postgres>,
    rabbitmq: Option<RabbitMq>,
    dir: DataDir,
}

impl Fleet {
    async fn start(options: &Options) -> anyhow::Result<Self> {
        let wanted = Wanted {
            postgres: options.postgres,
            rabbitmq: options.rabbitmq,
            ..Wanted::default()
        };
        let programs = tokio::task::spawn_blocking(move || install::ensure(wanted, &say)).await??;
        let dir = DataDir::create(options.dir.as_deref())?;
        let (postgres, rabbitmq) = tokio::try_join!(
            start_postgres(wanted.postgres.then_some(&programs), &dir.0),
            start_rabbitmq(wanted.rabbitmq.then_some(&programs), &dir.0)
        )?;
        Ok(Self {
            postgres,
            rabbitmq,
            dir,
        })
    }

    fn started(&self) -> Started {
        Started {
            database_url: self.postgres.as_ref().map(Postgres::url),
            amqp_url: self.rabbitmq.as_ref().map(RabbitMq::amqp_url),
            management_url: self.rabbitmq.as_ref().map(RabbitMq::management_url),
            dir: self.dir.0.clone(),
        }
    }

    async fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        let rabbitmq = self.rabbitmq.as_mut().context("this guard has no RabbitMQ");
        let postgres = self.postgres.as_mut().context("this guard has no Postgres");
        match command {
            Command::StopRabbitmq => rabbitmq?.stop().await,
            Command::CrashRabbitmq => rabbitmq?.crash().await,
            Command::StartRabbitmq => rabbitmq?.start().await?,
            Command::RestartRabbitmq => {
                let rabbitmq = rabbitmq?;
                rabbitmq.stop().await;
                rabbitmq.start().await?;
            }
            Command::AlarmRabbitmq => rabbitmq?.alarm(true).await?,
            Command::CalmRabbitmq => rabbitmq?.alarm(false).await?,
            Command::SuspendQueues => rabbitmq?.suspend(true).await?,
            Command::ResumeQueues => rabbitmq?.suspend(false).await?,
            Command::StopPostgres => postgres?.stop().await,
            Command::CrashPostgres => postgres?.crash().await,
            Command::StartPostgres => postgres?.start().await?,
            Command::FreezePostgres => postgres?.freeze()?,
            Command::ThawPostgres => postgres?.thaw()?,
            Command::RestartPostgres => {
                let postgres = postgres?;
                postgres.crash().await;
                postgres.start().await?;
            }
            // Handled where the end is watched for.
            Command::Detach => {}
        }
        Ok(())
    }
}

async fn start_postgres(
    programs: Option<&Programs>,
    dir: &Path,
) -> anyhow::Result<Option<Postgres>> {
    let Some(programs) = programs else {
        return Ok(None);
    };
    let bin = programs
        .postgres_bin
        .as_ref()
        .context("Postgres is not installed")?;
    Ok(Some(
        Postgres::create(bin, &dir.join("postgres"), password()).await?,
    ))
}

async fn start_rabbitmq(
    programs: Option<&Programs>,
    dir: &Path,
) -> anyhow::Result<Option<RabbitMq>> {
    let Some(programs) = programs else {
        return Ok(None);
    };
    let sbin = programs
        .rabbitmq_sbin
        .as_ref()
        .context("RabbitMQ is not installed")?;
    let epmd = programs.epmd.as_ref().context("Erlang is not installed")?;
    Ok(Some(
        RabbitMq::create(sbin, epmd, &dir.join("rabbitmq"), password()).await?,
    ))
}

/// Returns 192 random bits, in characters that need no quoting.
fn password() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<[u8; 24]>())
}

/// The folder for all data, removed on drop.
struct DataDir(PathBuf);

impl DataDir {
    fn create(wanted: Option<&Path>) -> anyhow::Result<Self> {
        let random = || {
            std::env::temp_dir().join(format!(
                "dispatch-servers-{}",
                data_encoding::HEXLOWER.encode(&rand::random::<[u8; 6]>())
            ))
        };
        let path = std::path::absolute(wanted.map_or_else(random, Path::to_owned))?;
        let cannot = || {
            format!(
                "cannot create the data folder {}, which must not exist yet",
                path.display()
            )
        };
        std::fs::create_dir(&path).with_context(cannot)?;
        let dir = Self(path);
        // Postgres may run as another user, whatever the umask; each server's own folder is closed
        // to others.
        std::fs::set_permissions(&dir.0, Permissions::from_mode(0o755))?;
        Ok(dir)
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // The last child of a killed server may still be writing for a moment.
        for _ in 0..REMOVE_TRIES {
            match std::fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(REMOVE_PAUSE)
                }
                _ => return,
            }
        }
        say(&format!("cannot remove {}", self.0.display()));
    }
}

/// Returns the lines of stdin, and a token cancelled at its end. A thread reads, because a read
/// cannot be cancelled.
fn read_stdin() -> (mpsc::UnboundedReceiver<String>, CancellationToken) {
    let (sender, lines) = mpsc::unbounded_channel();
    let ended = CancellationToken::new();
    let at_end = ended.clone().drop_guard();
    std::thread::spawn(move || {
        let _at_end = at_end;
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (lines, ended)
}

/// Writes one JSON line to stdout. Ignores failures, because the holder may be gone.
fn write_line(value: &impl Serialize) {
    let line = serde_json::to_string(value).expect("plain structures are always JSON");
    let mut stdout = std::io::stdout().lock();
    let _holder_gone = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Writes one line to stderr. Ignores failures: nobody may be reading.
fn say(line: &str) {
    let _nobody = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_the_lines_promised() {
        let request: Request = serde_json::from_str(r#"{"cmd":"restart_rabbitmq"}"#).unwrap();
        assert_eq!(
            request,
            Request {
                id: 0,
                cmd: Command::RestartRabbitmq
            }
        );
        let done = GuardReply {
            id: 3,
            outcome: Ok(()).into(),
        };
        assert_eq!(
            serde_json::to_string(&done).unwrap(),
            r#"{"id":3,"ok":true}"#
        );
        let refused = GuardReply {
            id: 4,
            outcome: Err(anyhow::anyhow!("no")).into(),
        };
        let text = serde_json::to_string(&refused).unwrap();
        assert_eq!(text, r#"{"id":4,"error":"no"}"#);
        assert_eq!(serde_json::from_str::<GuardReply>(&text).unwrap(), refused);
    }

    #[test]
    fn options_name_the_servers_and_nothing_unknown() {
        let options: Options =
            serde_json::from_str(r#"{"postgres":true,"rabbitmq":false}"#).unwrap();
        assert_eq!(
            options,
            Options {
                postgres: true,
                ..Options::default()
            }
        );
        assert!(
            serde_json::from_str::<Options>(r#"{"postgres":true,"rabbitmq":false,"ports":1}"#)
                .is_err()
        );
    }

    #[test]
    fn a_data_folder_goes_with_its_value_and_is_never_somebody_elses() {
        let dir = DataDir::create(None).unwrap();
        let path = dir.0.clone();
        std::fs::write(path.join("file"), "x").unwrap();
        assert!(DataDir::create(Some(&path)).is_err());
        drop(dir);
        assert!(!path.exists());
    }
}
