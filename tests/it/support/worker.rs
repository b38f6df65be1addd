//! The real worker as a process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dispatch_worker::devkit::ports::{self, Port};
use dispatch_worker::providers::channel::CHANNELS;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use tokio::process::{Child, Command};

use super::acme;
use super::servers::BINARY;
use super::wait::wait_for;
use super::world::TestWorld;

/// The number of bytes of the log that a failed test shows.
const SHOWN_LOG: usize = 24_000;
/// The time limit until a worker is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Passes SIGKILL on to the worker when the test's thread ends, so that a killed test run leaves
/// no worker behind.
const SETPRIV: &str = "/usr/bin/setpriv";

/// The public pages of the operations server.
pub(super) const PAGES: [&str; 3] = ["/", "/readyz", "/metrics"];
/// The timeout for a page at the end of a worker.
const PAGE_WITHIN: Duration = Duration::from_secs(1);

/// The options of a worker. The defaults are those of the program, except for the number of
/// connections and the addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerOptions {
    /// `stage:point[:n]`.
    pub(crate) crash_at: Option<String>,
    /// The concurrency limit of each lane.
    pub(crate) concurrency: Option<u16>,
    /// The limit of writable memory in bytes (RLIMIT_DATA); beyond it, the worker aborts.
    pub(crate) memory: Option<usize>,
    /// The deadline of one call to a provider, in seconds.
    pub(crate) call_seconds: Option<u64>,
    /// The limit of file descriptors (RLIMIT_NOFILE).
    pub(crate) descriptors: Option<u16>,
    /// Additional environment variables, which take precedence.
    pub(crate) environment: BTreeMap<String, String>,
}

impl WorkerOptions {
    /// Returns options with which the worker aborts at a crash point.
    pub(crate) fn crash_at(stage: &str, point: &str) -> Self {
        Self {
            crash_at: Some(format!("{stage}:{point}")),
            ..Self::default()
        }
    }
}

/// A running worker. Dropping it kills the process and keeps its last pages for the search at the
/// world's end; if the test has failed, its log is printed.
pub(crate) struct WorkerProcess {
    child: Child,
    pub(crate) pid: u32,
    log: PathBuf,
    port: Port,
}

impl WorkerProcess {
    pub(super) fn start(world: &TestWorld, number: u32, options: &WorkerOptions) -> Self {
        let port = ports::reserve().expect("a free port");
        world.serves_at(port.number());
        let log = world.folder.path().join(format!("worker-{number}.log"));
        let file = File::create(&log).expect("a log file");
        let mut command = program(options);
        command.arg("worker").env_clear();
        for (name, value) in environment(world, port.number(), options) {
            command.env(name, value);
        }
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .kill_on_drop(true);
        let child = command.spawn().expect("the worker starts");
        let pid = child.id().expect("it has just started");
        Self {
            child,
            pid,
            log,
            port,
        }
    }

    /// Waits until `/readyz` reports ready.
    pub(crate) async fn ready(&self) {
        wait_for("a worker to be ready", READY_WITHIN, async || {
            match self.readiness().await {
                Ok((true, _)) => Ok(()),
                Ok((false, why)) => Err(why),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
    }

    /// Waits until `/readyz` reports not ready, with `because` in its text.
    pub(crate) async fn not_ready(&self, because: &str) {
        wait_for(
            &format!("a worker that is not ready: {because}"),
            READY_WITHIN,
            async || match self.readiness().await {
                Ok((false, why)) if why.contains(because) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await;
    }

    /// Returns whether `/readyz` reports ready, and its text.
    pub(crate) async fn readiness(&self) -> reqwest::Result<(bool, String)> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let answer = http
            .get(format!("http://127.0.0.1:{}/readyz", self.port.number()))
            .send()
            .await?;
        Ok((answer.status().is_success(), answer.text().await?))
    }

    /// Returns the address of the operations server.
    pub(crate) fn operations(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// Returns the current metrics as Prometheus text.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", self.port.number());
        let answer = reqwest::get(url).await.expect("the worker answers");
        answer.text().await.expect("metrics are text")
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) async fn kill9(mut self) {
        self.child
            .kill()
            .await
            .expect("the process runs and is a child");
    }

    /// Sends SIGTERM, which starts a drain.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends any signal, such as SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).expect("no process has the id 0");
        // The child has not been waited for, so its id cannot belong to another process.
        kill_process(pid, signal).expect("the process runs and is a child");
    }

    /// Waits for the end of the process.
    pub(crate) async fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let ended =
            ended.unwrap_or_else(|_| panic!("the worker still runs after {} s", limit.as_secs()));
        ended.expect("the child can be waited for")
    }

    /// Stores the pages of the worker, if it still answers.
    fn keep_pages(&self) {
        let pages: String = PAGES
            .iter()
            .map_while(|path| page(self.port.number(), path).ok())
            .collect();
        // The folder is gone if the worker has outlived its world.
        drop(std::fs::write(self.log.with_extension("pages.log"), pages));
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let shown = log.ceil_char_boundary(log.len().saturating_sub(SHOWN_LOG));
            eprintln!(
                "--- {} (process {}) ---\n{}",
                self.log.display(),
                self.pid,
                &log[shown..]
            );
        } else {
            self.keep_pages();
        }
    }
}

/// Requests a page with blocking I/O, as `Drop` cannot wait for a runtime.
fn page(port: u16, path: &str) -> io::Result<String> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PAGE_WITHIN)?;
    stream.set_read_timeout(Some(PAGE_WITHIN))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Returns the command line. Each of these programs executes the next one in place, so that the
/// process id stays the same.
fn program(options: &WorkerOptions) -> Command {
    let limits = [
        options.memory.map(|bytes| format!("--data={bytes}")),
        options.descriptors.map(|most| format!("--nofile={most}")),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    let limited = if limits.is_empty() {
        Vec::new()
    } else {
        [vec!["prlimit".to_owned()], limits, vec!["--".to_owned()]].concat()
    };
    let watched = Path::new(SETPRIV)
        .exists()
        .then(|| [SETPRIV, "--pdeathsig", "KILL", "--"].map(str::to_owned));
    let mut words = limited
        .into_iter()
        .chain(watched.into_iter().flatten())
        .chain([BINARY.to_owned()]);
    let mut command = Command::new(words.next().expect("at least the program itself"));
    command.args(words);
    command
}

fn environment(world: &TestWorld, port: u16, options: &WorkerOptions) -> BTreeMap<String, String> {
    let simulator = world.simulator_url().unwrap_or("http://127.0.0.1:9");
    let mut environment = BTreeMap::new();
    let mut set = |name: &str, value: String| environment.insert(format!("DISPATCH_{name}"), value);
    set(
        "DATABASE_URL",
        world.database.worker_url.expose_secret().to_owned(),
    );
    set("AMQP_URL", world.worker_amqp_url.expose_secret().to_owned());
    set("KEYRING", world.keyring_setting.expose_secret().to_owned());
    set("OPS_LISTEN", format!("127.0.0.1:{port}"));
    set("POOL_SIZE", "4".to_owned());
    set("LOG", "info,dispatch_worker=debug".to_owned());
    set("ALLOW_HTTP_LOOPBACK", "true".to_owned());
    // Only the governor's own tests are about rates.
    set(
        "RATES",
        "azure_devops=5000/1,discord=5000/1,webhook=5000/1".to_owned(),
    );
    for name in [
        "AZURE_DEVOPS_URL",
        "AZURE_DEVOPS_PROFILE_URL",
        "AZURE_DEVOPS_GRAPH_URL",
        "AZURE_DEVOPS_SEARCH_URL",
    ] {
        set(name, simulator.to_owned());
    }
    set(
        "ENTRA_TOKEN_URL",
        format!("{simulator}/organizations/oauth2/v2.0/token"),
    );
    set("DISCORD_URL", format!("{simulator}/api/v10"));
    if let Some(smtp) = world.smtp_url() {
        set(
            "SMTP_URL",
            smtp.replace("://", &format!("://{}@", acme::MAIL_USER)),
        );
    }
    if let Some(crash_at) = &options.crash_at {
        set("CRASH_AT", crash_at.clone());
    }
    if let Some(seconds) = options.call_seconds {
        set("CALL_SECONDS", seconds.to_string());
    }
    if let Some(concurrency) = options.concurrency {
        for name in [
            "CONCURRENCY",
            "ASSIGNEE_SYNC_CONCURRENCY",
            "MESSAGING_CONCURRENCY",
        ] {
            set(name, concurrency.to_string());
        }
    }
    for kind in CHANNELS {
        if let (Some(api), Some(channel)) = (&kind.api, &kind.simulated) {
            environment.insert(
                api.variable.to_owned(),
                format!("{simulator}{}", channel.api),
            );
        }
    }
    environment.extend(options.environment.clone());
    environment
}
