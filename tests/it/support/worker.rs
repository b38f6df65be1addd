//! The real worker as a process.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dispatch_worker::devkit::ports::{self, Port};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use tokio::process::{Child, Command};

use super::acme;
use super::servers::BINARY;
use super::wait::wait_for;
use super::world::TestWorld;

/// How much of its log a failed test shows, in bytes.
const SHOWN_LOG: usize = 24_000;
/// Until a worker must be ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Passes SIGKILL on to the worker when the test's thread ends, so that a killed test run leaves no worker behind.
const SETPRIV: &str = "/usr/bin/setpriv";

/// What an operations server shows to anybody.
pub(super) const PAGES: [&str; 3] = ["/", "/readyz", "/metrics"];
/// How long a page is waited for at a worker's end.
const PAGE_WITHIN: Duration = Duration::from_secs(1);

/// How a worker is started. The defaults are those of the program, save for the number of connections and the addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerOptions {
    /// `stage:point[:n]`.
    pub(crate) crash_at: Option<String>,
    /// Jobs at a time in each lane.
    pub(crate) concurrency: Option<u16>,
    /// What the kernel lets it have of memory that it writes to, in bytes; with more, it aborts.
    pub(crate) memory: Option<usize>,
    /// Deadline of one call to a provider, in seconds.
    pub(crate) call_seconds: Option<u64>,
    /// How many file descriptors it may have (RLIMIT_NOFILE).
    pub(crate) descriptors: Option<u16>,
    /// Further environment, which wins.
    pub(crate) environment: BTreeMap<String, String>,
}

impl WorkerOptions {
    /// Aborts at a crash point.
    pub(crate) fn crash_at(stage: &str, point: &str) -> Self {
        Self { crash_at: Some(format!("{stage}:{point}")), ..Self::default() }
    }
}

/// A running worker. Dropped, it is killed, and what its pages said last is kept for the search at the world's end; its log is
/// shown when the test has failed.
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
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a second handle")).stderr(file).kill_on_drop(true);
        let child = command.spawn().expect("the worker starts");
        let pid = child.id().expect("it has just started");
        Self { child, pid, log, port }
    }

    /// Waits until `/readyz` says yes.
    pub(crate) async fn ready(&self) {
        wait_for("a worker to be ready", READY_WITHIN, async || match self.readiness().await {
            Ok((true, _)) => Ok(()),
            Ok((false, why)) => Err(why),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// Waits until `/readyz` says no, and why.
    pub(crate) async fn not_ready(&self, because: &str) {
        wait_for(&format!("a worker that is not ready: {because}"), READY_WITHIN, async || match self.readiness().await {
            Ok((false, why)) if why.contains(because) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// What `/readyz` says.
    pub(crate) async fn readiness(&self) -> reqwest::Result<(bool, String)> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let answer = http.get(format!("http://127.0.0.1:{}/readyz", self.port.number())).send().await?;
        Ok((answer.status().is_success(), answer.text().await?))
    }

    /// Where its operations server is.
    pub(crate) fn operations(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// What its metrics say now, as Prometheus text.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", self.port.number());
        let answer = reqwest::get(url).await.expect("the worker answers");
        answer.text().await.expect("metrics are text")
    }

    /// SIGKILL.
    pub(crate) async fn kill9(mut self) {
        self.child.kill().await.expect("it runs and is ours");
    }

    /// SIGTERM: it drains.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Any signal, such as SIGSTOP and SIGCONT.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid.cast_signed()).expect("no process has the id 0");
        // It is not reaped before it is waited for, so the id is its own.
        kill_process(pid, signal).expect("it runs and is ours");
    }

    /// Waits for its end.
    pub(crate) async fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("the worker still runs after {} s", limit.as_secs()));
        ended.expect("it can be waited for")
    }

    /// Keeps its pages. One that has ended or does not answer says nothing.
    fn keep_pages(&self) {
        let pages: String = PAGES.iter().map_while(|path| page(self.port.number(), path).ok()).collect();
        // There is no folder any more where the worker has outlived its world.
        drop(std::fs::write(self.log.with_extension("pages.log"), pages));
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let shown = log.ceil_char_boundary(log.len().saturating_sub(SHOWN_LOG));
            eprintln!("--- {} (process {}) ---\n{}", self.log.display(), self.pid, &log[shown..]);
        } else {
            self.keep_pages();
        }
    }
}

/// An answer as it comes. Whoever drops a worker does not wait for a runtime.
fn page(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PAGE_WITHIN)?;
    stream.set_read_timeout(Some(PAGE_WITHIN))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Each of these programs becomes the next one, so that the process stays the same.
fn program(options: &WorkerOptions) -> Command {
    let limits =
        [options.memory.map(|bytes| format!("--data={bytes}")), options.descriptors.map(|most| format!("--nofile={most}"))];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    let limited =
        if limits.is_empty() { Vec::new() } else { [vec!["prlimit".to_owned()], limits, vec!["--".to_owned()]].concat() };
    let watched = Path::new(SETPRIV).exists().then(|| [SETPRIV, "--pdeathsig", "KILL", "--"].map(str::to_owned));
    let mut words = limited.into_iter().chain(watched.into_iter().flatten()).chain([BINARY.to_owned()]);
    let mut command = Command::new(words.next().expect("the program itself is there"));
    command.args(words);
    command
}

fn environment(world: &TestWorld, port: u16, options: &WorkerOptions) -> BTreeMap<String, String> {
    let simulator = world.simulator_url().unwrap_or("http://127.0.0.1:9");
    let mut environment = BTreeMap::new();
    let mut set = |name: &str, value: String| environment.insert(format!("DISPATCH_{name}"), value);
    set("DATABASE_URL", world.database.worker_url.expose_secret().to_owned());
    set("AMQP_URL", world.worker_amqp_url.expose_secret().to_owned());
    set("KEYRING", world.keyring_setting.expose_secret().to_owned());
    set("OPS_LISTEN", format!("127.0.0.1:{port}"));
    set("POOL_SIZE", "4".to_owned());
    set("LOG", "info,dispatch_worker=debug".to_owned());
    set("ALLOW_HTTP_LOOPBACK", "true".to_owned());
    // No test but the governor's own is about the pace of a channel.
    set("RATES", "azure_devops=5000/1,discord=5000/1,webhook=5000/1".to_owned());
    for name in ["AZURE_DEVOPS_URL", "AZURE_DEVOPS_PROFILE_URL", "AZURE_DEVOPS_GRAPH_URL", "AZURE_DEVOPS_SEARCH_URL"] {
        set(name, simulator.to_owned());
    }
    set("ENTRA_TOKEN_URL", format!("{simulator}/organizations/oauth2/v2.0/token"));
    set("DISCORD_URL", format!("{simulator}/api/v10"));
    set("SLACK_URL", format!("{simulator}/slack/api"));
    if let Some(smtp) = world.smtp_url() {
        set("SMTP_URL", smtp.replace("://", &format!("://{}@", acme::MAIL_USER)));
    }
    if let Some(crash_at) = &options.crash_at {
        set("CRASH_AT", crash_at.clone());
    }
    if let Some(seconds) = options.call_seconds {
        set("CALL_SECONDS", seconds.to_string());
    }
    if let Some(concurrency) = options.concurrency {
        for name in ["CONCURRENCY", "ASSIGNEE_SYNC_CONCURRENCY", "MESSAGING_CONCURRENCY"] {
            set(name, concurrency.to_string());
        }
    }
    environment.extend(options.environment.clone());
    environment
}
