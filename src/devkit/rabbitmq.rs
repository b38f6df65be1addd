//! A private RabbitMQ with its own Erlang port mapper, ports and password, on loopback. Source:
//! <https://www.rabbitmq.com/docs/configure>,
//! <https://www.erlang.org/doc/apps/erts/epmd_cmd.html>.

use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::management::Management;
use super::ports::{self, Port};
use super::process::{Abrupt, Launch, Process};

/// The time limit of a start.
const START_LIMIT: Duration = Duration::from_secs(90);
/// The time limit of a graceful stop. RabbitMQ closes its connections and writes its messages
/// within a moment, but with the management plugin it then waits 5 s for a part of itself that has
/// already stopped (observed with 3.10). That is not waited for.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// The time limit of the port mapper's start.
const EPMD_LIMIT: Duration = Duration::from_secs(10);
/// The time limit of a command to the server.
const CONTROL_LIMIT: Duration = Duration::from_secs(30);
/// The only user, an administrator.
const USER: &str = "dispatch";

/// The server, running or stopped; the port mapper runs in both cases.
pub(crate) struct RabbitMq {
    sbin: PathBuf,
    dir: PathBuf,
    amqp: Port,
    management: Port,
    distribution: Port,
    epmd_port: Port,
    password: String,
    // Declared before the port mapper, so that it is dropped first.
    process: Option<Process>,
    _epmd: Process,
}

impl RabbitMq {
    /// Creates the data folder `dir` and starts the server in it. `sbin` is RabbitMQ's folder of
    /// scripts.
    pub(crate) async fn create(
        sbin: &Path,
        epmd: &Path,
        dir: &Path,
        password: String,
    ) -> anyhow::Result<Self> {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let port = || ports::reserve().context("no free port for RabbitMQ");
        let (amqp, management, distribution, epmd_port) = (port()?, port()?, port()?, port()?);
        write_private(
            &dir.join("rabbitmq.conf"),
            &configuration(amqp.number(), management.number(), &password),
        )?;
        write_private(&dir.join("enabled_plugins"), "[rabbitmq_management].\n")?;
        write_private(&dir.join("rabbitmq-env.conf"), "")?;
        write_private(&dir.join("advanced.config"), "[].\n")?;
        let mut rabbitmq = Self {
            sbin: sbin.to_owned(),
            dir: dir.to_owned(),
            _epmd: start_epmd(epmd, dir, epmd_port.number()).await?,
            amqp,
            management,
            distribution,
            epmd_port,
            password,
            process: None,
        };
        rabbitmq.start().await?;
        Ok(rabbitmq)
    }

    /// Returns the URL of vhost `/`, including the password.
    pub(crate) fn amqp_url(&self) -> String {
        format!(
            "amqp://{USER}:{}@127.0.0.1:{}/%2f",
            self.password,
            self.amqp.number()
        )
    }

    /// Returns the URL of the management API, including the password.
    pub(crate) fn management_url(&self) -> String {
        format!(
            "http://{USER}:{}@127.0.0.1:{}",
            self.password,
            self.management.number()
        )
    }

    /// Starts the server and waits until it accepts AMQP and HTTP.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        if self.process.is_some() {
            bail!("RabbitMQ is running already");
        }
        let mut launch = self.launch("rabbitmq-server")?;
        let command = &mut launch.command;
        for (name, file) in [
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_PID_FILE", "rabbitmq.pid"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ] {
            command.env(name, self.dir.join(file));
        }
        command
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_DIST_PORT", self.distribution.number().to_string());
        command.env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
        );
        // The script then replaces itself by the server instead of waiting for it, so that the
        // known process is the server.
        command.env("RUNNING_UNDER_SYSTEMD", "true");
        let mut process = launch.spawn()?;
        let management = Management::new(&self.management_url())?;
        let amqp = self.amqp.number();
        process
            .wait_ready(START_LIMIT, async || {
                speaks_amqp(amqp).await && management.is_up().await
            })
            .await?;
        self.process = Some(process);
        Ok(())
    }

    /// Prepares one of RabbitMQ's programs for this server.
    fn launch(&self, program: &'static str) -> anyhow::Result<Launch> {
        let mut launch = Launch::new(program, &self.sbin.join(program), &self.dir, Abrupt::Kill)?;
        launch
            .command
            .env("RABBITMQ_NODENAME", "dispatch@localhost");
        launch
            .command
            .env("ERL_EPMD_PORT", self.epmd_port.number().to_string());
        Ok(launch)
    }

    /// Sets or clears the memory alarm. While it is set, the server does not read from connections
    /// that have published. Source: <https://www.rabbitmq.com/docs/memory#configuring-threshold>.
    pub(crate) async fn alarm(&self, on: bool) -> anyhow::Result<()> {
        let mut launch = self.launch("rabbitmqctl")?;
        launch
            .command
            .args(["set_vm_memory_high_watermark", if on { "0" } else { "0.4" }]);
        launch.run(CONTROL_LIMIT).await
    }

    /// Suspends or resumes the processes of classic queues whose names end in `.suspended`. A
    /// suspended queue receives messages and confirms none, like a queue on a node that hangs.
    /// Source: <https://www.erlang.org/doc/apps/stdlib/sys.html#suspend/1>.
    pub(crate) async fn suspend(&self, on: bool) -> anyhow::Result<()> {
        let mut launch = self.launch("rabbitmqctl")?;
        let deed = if on { "suspend" } else { "resume" };
        launch.command.arg("eval").arg(format!(
            "[ok = sys:{deed}(amqqueue:get_pid(Q)) || Q <- rabbit_amqqueue:list(), \
             {{resource, _, queue, Name}} <- [amqqueue:get_name(Q)], \
             binary:longest_common_suffix([Name, <<\".suspended\">>]) =:= 10]."
        ));
        launch.run(CONTROL_LIMIT).await
    }

    /// Stops the server gracefully: its clients are notified, its messages are written. The port
    /// mapper keeps running.
    pub(crate) async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop(Signal::TERM, STOP_LIMIT).await;
        }
    }

    /// Stops the server as a crash would. The port mapper keeps running.
    pub(crate) async fn crash(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop(Signal::KILL, STOP_LIMIT).await;
        }
    }
}

async fn start_epmd(epmd: &Path, dir: &Path, port: u16) -> anyhow::Result<Process> {
    let mut launch = Launch::new("epmd", epmd, dir, Abrupt::Kill)?;
    launch
        .command
        .args(["-port", &port.to_string(), "-address", "127.0.0.1"]);
    let mut process = launch.spawn()?;
    process
        .wait_ready(EPMD_LIMIT, async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_ok()
        })
        .await?;
    Ok(process)
}

/// Returns the configuration. Statistics are off: they are up to 5 s old, so nothing here reads
/// them, and collecting them slows down a small machine.
fn configuration(amqp: u16, management: u16, password: &str) -> String {
    format!(
        "listeners.tcp.loopback = 127.0.0.1:{amqp}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management}\n\
         default_user = {USER}\n\
         default_pass = {password}\n\
         default_user_tags.administrator = true\n\
         default_permissions.configure = .*\n\
         default_permissions.read = .*\n\
         default_permissions.write = .*\n\
         disk_free_limit.absolute = 50MB\n\
         management_agent.disable_metrics_collector = true\n\
         management.disable_stats = true\n\
         management.enable_queue_totals = true\n"
    )
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    std::io::Write::write_all(&mut file, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Returns whether a broker answers AMQP's protocol header with a method frame (type 1), its
/// `connection.start`. Source: AMQP 0-9-1, 2.2.4 "The Connection Class", 4.2.2 "Protocol Header".
async fn speaks_amqp(port: u16) -> bool {
    let greet = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
        stream.read_u8().await
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(5), greet).await,
        Ok(Ok(1))
    )
}
