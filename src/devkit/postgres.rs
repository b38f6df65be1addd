//! A private Postgres with its own data folder, port and password, on loopback. Source:
//! <https://www.postgresql.org/docs/current/app-initdb.html>, `app-postgres.html`,
//! `server-shutdown.html`.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};
use tokio_postgres::NoTls;

use super::frozen;
use super::ports::{self, Port};
use super::process::{Abrupt, Launch, Process};

/// Time limits for `initdb`, for the start (including recovery after a crash) and for a fast
/// shutdown.
const INIT_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Settings other than the port. Durability is tested, so `fsync` stays on. There is no socket
/// file, whose path has a length limit.
const SETTINGS: [&str; 6] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "shared_buffers=128MB",
    "log_line_prefix=%m [%p] %d ",
    "logging_collector=off",
];

/// The server, running or stopped.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    port: Port,
    password: String,
    owner: Option<Owner>,
    process: Option<Process>,
    is_frozen: bool,
}

/// The user that runs the server if this process is root: Postgres refuses to run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Postgres {
    /// Creates the data folder `dir` and starts the server in it. `bin` is the folder of Postgres'
    /// programs.
    pub(crate) async fn create(bin: &Path, dir: &Path, password: String) -> anyhow::Result<Self> {
        let owner = if rustix::process::geteuid().is_root() {
            Some(Owner::find()?)
        } else {
            None
        };
        if let (Some(_), Some(closed)) = (owner, closed_above(dir)) {
            bail!(
                "Postgres runs as the user `postgres`, who cannot access {}; set TMPDIR to a folder open to all",
                closed.display()
            );
        }
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let port = ports::reserve().context("no free port for Postgres")?;
        let mut postgres = Self {
            bin: bin.to_owned(),
            dir: dir.to_owned(),
            port,
            password,
            owner,
            process: None,
            is_frozen: false,
        };
        postgres.init().await?;
        postgres.start().await?;
        Ok(postgres)
    }

    /// Returns the superuser's URL, including the password.
    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{}/postgres",
            self.password,
            self.port.number()
        )
    }

    /// Starts the server and waits until it accepts a connection.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        if self.process.is_some() {
            bail!("Postgres is running already");
        }
        let mut launch = self.launch("postgres")?;
        launch
            .command
            .arg("-D")
            .arg(self.data())
            .args(["-c", &format!("port={}", self.port.number())]);
        for setting in SETTINGS {
            launch.command.args(["-c", setting]);
        }
        let mut process = launch.spawn()?;
        let url = self.url();
        process
            .wait_ready(START_LIMIT, async || accepts(&url).await)
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Stops the server gracefully, closing its clients' connections; if that takes too long,
    /// kills it.
    pub(crate) async fn stop(&mut self) {
        self.let_go_on();
        if let Some(process) = self.process.take() {
            process.stop(Signal::INT, STOP_LIMIT).await;
        }
    }

    /// Stops the server as a crash would: no checkpoint, so that the next start recovers from the
    /// log.
    pub(crate) async fn crash(&mut self) {
        self.let_go_on();
        if let Some(process) = self.process.take() {
            process.stop(Signal::QUIT, STOP_LIMIT).await;
        }
    }

    /// Freezes all its processes until [`Postgres::thaw`] or its end.
    pub(crate) fn freeze(&mut self) -> anyhow::Result<()> {
        // Set first, because a failure may leave some processes frozen.
        self.is_frozen = true;
        frozen::freeze(self.pid()?)
    }

    /// Resumes the processes.
    pub(crate) fn thaw(&mut self) -> anyhow::Result<()> {
        frozen::thaw(self.pid()?)?;
        self.is_frozen = false;
        Ok(())
    }

    fn pid(&self) -> anyhow::Result<Pid> {
        let id = self
            .process
            .as_ref()
            .and_then(Process::id)
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        id.context("Postgres is not running")
    }

    /// Resumes frozen processes, which would handle no signal and remain.
    fn let_go_on(&mut self) {
        if self.is_frozen {
            // Processes that have ended need no signal.
            let _gone = self.thaw();
        }
    }

    async fn init(&self) -> anyhow::Result<()> {
        let password_file = self.dir.join("password");
        self.give(&self.dir)?;
        std::io::Write::write_all(
            &mut std::fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&password_file)?,
            self.password.as_bytes(),
        )?;
        self.give(&password_file)?;
        let mut launch = self.launch("initdb")?;
        launch.command.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        launch
            .command
            .arg("-D")
            .arg(self.data())
            .arg("--pwfile")
            .arg(&password_file);
        launch.run(INIT_LIMIT).await?;
        std::fs::remove_file(&password_file).context("cannot remove initdb's password file")
    }

    fn launch(&self, program: &'static str) -> anyhow::Result<Launch> {
        let mut launch = Launch::new(program, &self.bin.join(program), &self.dir, Abrupt::Quit)?;
        if let Some(Owner { uid, gid }) = self.owner {
            launch.command.uid(uid).gid(gid);
        }
        Ok(launch)
    }

    fn give(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(Owner { uid, gid }) = self.owner {
            chown(path, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to user postgres", path.display()))?;
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.let_go_on();
    }
}

impl Owner {
    fn find() -> anyhow::Result<Self> {
        let passwd = std::fs::read_to_string("/etc/passwd").context("cannot read /etc/passwd")?;
        Self::parse(&passwd).context("Postgres refuses to run as root, and there is no user `postgres` to run it as; create one")
    }

    /// Parses lines `name:x:uid:gid:…`.
    fn parse(passwd: &str) -> Option<Self> {
        let mut fields = passwd
            .lines()
            .find_map(|line| line.strip_prefix("postgres:"))?
            .split(':')
            .skip(1);
        Some(Self {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    }
}

/// Returns the folder above `dir` that other users cannot enter.
fn closed_above(dir: &Path) -> Option<&Path> {
    let is_closed = |above: &&Path| {
        above
            .metadata()
            .is_ok_and(|of| of.permissions().mode() & 0o001 == 0)
    };
    dir.ancestors().skip(1).find(is_closed)
}

async fn accepts(url: &str) -> bool {
    let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await else {
        return false;
    };
    let ask = async move { client.simple_query("SELECT 1").await.is_ok() };
    tokio::join!(ask, connection).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_read_from_the_list_of_users() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:admin,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(Owner::parse(passwd), Some(Owner { uid: 101, gid: 104 }));
        assert_eq!(Owner::parse("root:x:0:0:root:/root:/bin/sh\n"), None);
    }
}
