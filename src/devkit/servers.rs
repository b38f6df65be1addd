//! The holder's side of the private servers. Starts the guard, and creates databases, vhosts and
//! outages for tests.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::Url;
use secrecy::SecretString;
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::NoTls;

use super::guard::{Command, GuardOutcome, GuardReply, Options, Request, Started};
use super::management::Management;
pub use super::management::{PRODUCER_RIGHTS, Rights, WORKER_RIGHTS};
use crate::broker::Publisher;

/// The time limit of a statement such as `CREATE DATABASE`.
const STATEMENT_LIMIT: Duration = Duration::from_secs(60);

/// A Postgres and a RabbitMQ. Those that [`Servers::start`] started are stopped, and their data
/// removed, when this is dropped or its process has ended for any reason. Usable from any runtime,
/// so one value can serve many tests.
pub struct Servers {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, of a user that may create databases.
    pub database_url: String,
    /// `amqp://USER:PASSWORD@HOST:PORT/VHOST`.
    pub amqp_url: String,
    /// `http://USER:PASSWORD@HOST:PORT`, RabbitMQ's management API, if known.
    pub management_url: Option<String>,
    /// The folder for data and logs of the servers that were started.
    pub dir: Option<PathBuf>,
    management: Option<Management>,
    guard: Option<Guard>,
}

/// The contents of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Ready messages.
    pub ready: u64,
    /// Delivered messages that are not acknowledged yet.
    pub unacked: u64,
    pub consumers: u32,
}

/// Existing servers, to be used instead of private ones.
#[derive(Clone, Default)]
pub struct Existing {
    /// See [`Servers::database_url`].
    pub database_url: Option<String>,
    /// See [`Servers::amqp_url`].
    pub amqp_url: Option<String>,
    /// See [`Servers::management_url`]; only used with an `amqp_url`.
    pub management_url: Option<String>,
}

impl Servers {
    /// Starts a private Postgres and a private RabbitMQ under a guard process, `<binary> guard`.
    /// Takes about 5 s, or a minute if they must be installed first. Messages for people (an
    /// installation) are passed to `report`, a line at a time, from another thread. If the future
    /// is dropped, so are the servers.
    ///
    /// # Errors
    /// The guard cannot be started, or failed to start the servers; the text is its error, with
    /// the end of their logs.
    pub async fn start(
        binary: &Path,
        report: impl Fn(&str) + Send + 'static,
    ) -> anyhow::Result<Self> {
        Self::start_missing(binary, Existing::default(), report).await
    }

    /// As [`Servers::start`], but starts only what does not exist already.
    ///
    /// # Errors
    /// As [`Servers::start`]; also an invalid URL.
    pub async fn start_missing(
        binary: &Path,
        existing: Existing,
        report: impl Fn(&str) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let options = Options {
            postgres: existing.database_url.is_none(),
            rabbitmq: existing.amqp_url.is_none(),
            ..Options::default()
        };
        if let (Some(database_url), Some(amqp_url)) = (&existing.database_url, &existing.amqp_url) {
            return Self::external(database_url, amqp_url, existing.management_url.as_deref());
        }
        let (guard, started) = Guard::start(binary, &options, report).await?;
        let own = "the guard did not start the requested servers";
        let database_url = existing
            .database_url
            .or(started.database_url)
            .context(own)?;
        let amqp_url = existing.amqp_url.or(started.amqp_url).context(own)?;
        let management_url = started.management_url.or(existing.management_url);
        let servers = Self::external(&database_url, &amqp_url, management_url.as_deref())?;
        Ok(Self {
            dir: Some(started.dir),
            guard: Some(guard),
            ..servers
        })
    }

    /// Uses existing servers. Without a management URL no vhosts are created, and the one in
    /// `amqp_url` is used.
    ///
    /// # Errors
    /// The URL is invalid.
    pub fn external(
        database_url: &str,
        amqp_url: &str,
        management_url: Option<&str>,
    ) -> anyhow::Result<Self> {
        parse(database_url)?;
        parse(amqp_url)?;
        Ok(Self {
            database_url: database_url.to_owned(),
            amqp_url: amqp_url.to_owned(),
            management_url: management_url.map(str::to_owned),
            dir: None,
            management: management_url.map(Management::new).transpose()?,
            guard: None,
        })
    }

    /// Returns the guard's process id, if there is a guard.
    #[must_use]
    pub fn guard_pid(&self) -> Option<u32> {
        self.guard.as_ref().map(|guard| guard.pid)
    }

    /// Stops the servers that were started and waits until they and their data are gone.
    pub async fn stop(self) {
        if let Some(guard) = self.guard {
            guard.stop().await;
        }
    }

    /// Leaves the servers running after this process. SIGTERM to the returned process id, the
    /// guard's, stops them.
    ///
    /// # Errors
    /// There is no guard, or it has ended.
    pub async fn detach(self) -> anyhow::Result<u32> {
        self.command(Command::Detach).await?;
        self.guard_pid().context("there is no guard")
    }

    /// Sends the guard a command, such as an outage. Returns when it is done.
    ///
    /// # Errors
    /// There is no guard, it has ended, or the command failed.
    pub async fn command(&self, command: Command) -> anyhow::Result<()> {
        self.guard
            .as_ref()
            .context("these servers were not started here")?
            .command(command)
            .await
    }

    /// Creates a database, as a copy of `template` if given (which must have no connections), and
    /// returns its URL.
    ///
    /// # Errors
    /// Postgres does not answer or refuses, or the name is not 1 to 63 of `a-z A-Z 0-9 _ -`.
    pub async fn create_database(
        &self,
        name: &str,
        template: Option<&str>,
    ) -> anyhow::Result<String> {
        let statement = match template {
            Some(template) => format!(
                "CREATE DATABASE {} TEMPLATE {}",
                quoted(name)?,
                quoted(template)?
            ),
            None => format!("CREATE DATABASE {}", quoted(name)?),
        };
        self.execute(&statement).await?;
        with_path(&self.database_url, name)
    }

    /// Removes a database, closing its connections. A missing one is not an error.
    ///
    /// # Errors
    /// As [`Servers::create_database`].
    pub async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        self.execute(&format!(
            "DROP DATABASE IF EXISTS {} WITH (FORCE)",
            quoted(name)?
        ))
        .await
    }

    /// Creates a vhost and returns its URL. Without a management URL, returns the given one.
    ///
    /// # Errors
    /// The management API does not answer or refuses, or the name is not 1 to 63 of `a-z A-Z 0-9 _ -`.
    pub async fn create_vhost(&self, name: &str) -> anyhow::Result<String> {
        let Some(management) = &self.management else {
            return Ok(self.amqp_url.clone());
        };
        quoted(name)?;
        management
            .create_vhost(name, parse(&self.amqp_url)?.username())
            .await?;
        with_path(&self.amqp_url, name)
    }

    /// Removes a vhost with its queues, closing its connections. A missing one is not an error.
    /// Without a management URL, removes nothing.
    ///
    /// # Errors
    /// The management API does not answer or refuses.
    pub async fn delete_vhost(&self, name: &str) -> anyhow::Result<()> {
        match &self.management {
            Some(management) => management.delete_vhost(name).await,
            None => Ok(()),
        }
    }

    /// Creates a RabbitMQ user with these permissions in a vhost, and returns its URL. An existing
    /// user gets the permissions.
    ///
    /// # Errors
    /// There is no management URL, or the management API does not answer or refuses.
    pub async fn create_user(
        &self,
        vhost: &str,
        user: &str,
        password: &str,
        rights: &Rights<'_>,
    ) -> anyhow::Result<String> {
        self.users()?
            .create_user(vhost, user, password, rights)
            .await?;
        with_user(&with_path(&self.amqp_url, vhost)?, user, password)
    }

    /// Removes a RabbitMQ user.
    ///
    /// # Errors
    /// As [`Servers::create_user`]; also if there is no such user.
    pub async fn delete_user(&self, user: &str) -> anyhow::Result<()> {
        self.users()?.delete_user(user).await
    }

    fn users(&self) -> anyhow::Result<&Management> {
        self.management
            .as_ref()
            .context("creating users requires the URL of RabbitMQ's management API")
    }

    /// Returns the contents of a queue at this moment.
    ///
    /// # Errors
    /// There is no management URL, RabbitMQ does not answer, or there is no such queue.
    pub async fn queue_depth(&self, vhost: &str, queue: &str) -> anyhow::Result<QueueDepth> {
        let management = self
            .management
            .as_ref()
            .context("a queue's depth requires the URL of RabbitMQ's management API")?;
        let (totals, consumers) =
            tokio::try_join!(management.queue_totals(vhost), self.consumers(vhost, queue))?;
        let totals = totals.into_iter().find(|totals| totals.name == queue);
        let totals =
            totals.with_context(|| format!("there is no queue {queue} in vhost {vhost}"))?;
        let unknown = || format!("queue {queue} does not report its length yet");
        Ok(QueueDepth {
            ready: totals.messages_ready.with_context(unknown)?,
            unacked: totals.messages_unacknowledged.with_context(unknown)?,
            consumers,
        })
    }

    /// Returns the number of consumers. Only a declare reports it without delay; a passive one
    /// changes nothing.
    async fn consumers(&self, vhost: &str, queue: &str) -> anyhow::Result<u32> {
        let mut url = parse(&self.amqp_url)?;
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("the AMQP URL has no vhost"))?
            .clear()
            .push(vhost);
        let looking = Publisher::connect(&SecretString::from(url.to_string())).await?;
        Ok(looking.depth(queue).await?.consumers)
    }

    async fn execute(&self, statement: &str) -> anyhow::Result<()> {
        let run = async {
            let (client, connection) = tokio_postgres::connect(&self.database_url, NoTls).await?;
            // The connection ends when its client is dropped.
            let ask = async move { client.batch_execute(statement).await };
            tokio::join!(ask, connection).0
        };
        let done = tokio::time::timeout(STATEMENT_LIMIT, run)
            .await
            .context("Postgres took too long")?;
        done.with_context(|| format!("Postgres did not run {statement}"))
    }
}

/// Quotes a name for SQL. Its characters also need no escaping in a URL.
fn quoted(name: &str) -> anyhow::Result<String> {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    ensure!(
        is_plain && (1..=63).contains(&name.len()),
        "expected a name of 1 to 63 characters a-z A-Z 0-9 _ -, got {name:?}"
    );
    Ok(format!("\"{name}\""))
}

/// Parses a URL. The error omits the URL, because it contains a password.
fn parse(url: &str) -> anyhow::Result<Url> {
    let parsed = Url::parse(url).ok().filter(Url::has_host);
    parsed.context("expected a server URL like scheme://user:password@host:port/name")
}

/// Returns the URL of the same server with another user and password.
///
/// # Errors
/// The URL is invalid, or cannot have a user.
pub fn with_user(url: &str, user: &str, password: &str) -> anyhow::Result<String> {
    let mut url = parse(url)?;
    let named = url
        .set_username(user)
        .and_then(|()| url.set_password(Some(password)));
    named.map_err(|()| anyhow::anyhow!("the URL of a server cannot have a user"))?;
    Ok(url.into())
}

fn with_path(url: &str, path: &str) -> anyhow::Result<String> {
    let mut url = parse(url)?;
    url.set_path(path);
    Ok(url.into())
}

/// The guard process. It uses blocking pipes and threads rather than tokio's, which would belong
/// to the runtime that created them; other tests use the servers later.
struct Guard {
    pid: u32,
    talk: Mutex<Talk>,
}

struct Talk {
    /// Open while the servers must run.
    stdin: ChildStdin,
    /// Lines of the guard's stdout. The channel closes when the guard has ended.
    lines: mpsc::UnboundedReceiver<String>,
    last_id: u64,
}

impl Guard {
    async fn start(
        binary: &Path,
        options: &Options,
        report: impl Fn(&str) + Send + 'static,
    ) -> anyhow::Result<(Self, Started)> {
        let mut command = std::process::Command::new(binary);
        command
            .arg("guard")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {} guard", binary.display()))?;
        let pid = child.id();
        let stdin = child.stdin.take().context("the guard has no stdin")?;
        let stderr = child.stderr.take().context("the guard has no stderr")?;
        std::thread::spawn(move || report_lines(stderr, report));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || read_until_ended(child, &sender));
        let mut talk = Talk {
            stdin,
            lines,
            last_id: 0,
        };
        talk.send(&serde_json::to_string(options)?)?;
        let line = talk
            .lines
            .recv()
            .await
            .context("the guard ended without a line on stdout")?;
        if let Ok(GuardOutcome::Error(error)) = serde_json::from_str(&line) {
            bail!("{error}");
        }
        let started =
            serde_json::from_str(&line).context("the guard's first line cannot be parsed")?;
        Ok((
            Self {
                pid,
                talk: Mutex::new(talk),
            },
            started,
        ))
    }

    async fn command(&self, command: Command) -> anyhow::Result<()> {
        let mut talk = self.talk.lock().await;
        talk.last_id += 1;
        let id = talk.last_id;
        talk.send(&serde_json::to_string(&Request { id, cmd: command })?)?;
        while let Some(line) = talk.lines.recv().await {
            let answer: GuardReply =
                serde_json::from_str(&line).context("the guard's answer cannot be parsed")?;
            match answer.outcome {
                // The answer of an earlier request that was abandoned.
                _ if answer.id != id => {}
                GuardOutcome::Ok(_) => return Ok(()),
                GuardOutcome::Error(error) => bail!("{error}"),
            }
        }
        bail!("the guard has ended")
    }

    async fn stop(self) {
        let Talk {
            stdin, mut lines, ..
        } = self.talk.into_inner();
        drop(stdin);
        while lines.recv().await.is_some() {}
    }
}

impl Talk {
    fn send(&mut self, line: &str) -> anyhow::Result<()> {
        // A single write, so that a line is never partial. A pipe buffers many of them, so this
        // does not block.
        self.stdin
            .write_all(format!("{line}\n").as_bytes())
            .context("the guard has ended")
    }
}

fn report_lines(stderr: ChildStderr, report: impl Fn(&str)) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        report(&line);
    }
}

/// Passes on the guard's lines. At their end, waits for the guard's end, so that it is always
/// reaped.
fn read_until_ended(mut child: Child, lines: &mpsc::UnboundedSender<String>) {
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // The receiver may be gone; the guard must be waited for all the same.
            let _nobody = lines.send(line);
        }
    }
    // This cannot fail, because nothing else waits for this child.
    let _status = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_name_keeps_the_rest_of_a_url() {
        assert_eq!(
            with_path("postgres://u:p@h:5432/postgres?a=b", "t_1").unwrap(),
            "postgres://u:p@h:5432/t_1?a=b"
        );
        assert_eq!(
            with_path("amqp://u:p@h:5672/%2f", "t-1").unwrap(),
            "amqp://u:p@h:5672/t-1"
        );
    }

    #[test]
    fn an_invalid_url_is_refused_without_repeating_it() {
        let error = Servers::external("host=h password=canary", "amqp://u:p@h/", None)
            .err()
            .unwrap();
        assert!(!format!("{error:#}").contains("canary"));
    }

    #[test]
    fn a_name_that_would_need_quoting_is_refused() {
        assert!(quoted("a\"; DROP").is_err());
        assert!(quoted("").is_err());
        assert_eq!(quoted("Test_1-a").unwrap(), "\"Test_1-a\"");
    }
}
