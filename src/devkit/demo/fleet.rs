//! The processes of the demo: private servers, the simulator and two workers. Dropping the fleet
//! stops all of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use data_encoding::HEXLOWER;
use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use rustix::process::Signal;
use secrecy::{ExposeSecret, SecretString};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::traffic::SOURCE;
use super::world::World;
use crate::broker::{self, topology};
use crate::devkit::ports::{self, Port};
use crate::devkit::process::{Abrupt, Launch, Process};
use crate::devkit::servers::{PRODUCER_RIGHTS, Servers, WORKER_RIGHTS, with_user};
use crate::devkit::simulator::process::SimulatorProcess;
use crate::message::Producer;
use crate::operations;
use crate::secrets::Keyring;
use crate::store::{self, Actor, Role, Store, WorkerLogin};
use crate::{pipelines, telemetry};

/// The time limit for a worker to become ready.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(20);
/// The time limit for a worker to drain.
const DRAIN_LIMIT: Duration = Duration::from_secs(8);
/// The time limit of a request to a worker.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Name of the witness log in the demo's folder.
const WITNESS: &str = "witness.jsonl";
const DATABASE: &str = "dispatch";
const VHOST: &str = "dispatch";
/// The RabbitMQ user that publishes.
const PRODUCER: &str = "demo-producer";
/// The Postgres role that the workers log in with.
const WORKER: &str = "demo_worker";

/// The URLs and keys of the processes.
pub(super) struct Links {
    /// Postgres, as the owner of the schema.
    pub(super) database_url: SecretString,
    /// Postgres, as a worker.
    pub(super) worker_url: SecretString,
    /// RabbitMQ, as an administrator.
    pub(super) amqp_url: SecretString,
    pub(super) producer_amqp_url: SecretString,
    worker_amqp_url: SecretString,
    pub(super) keyring: SecretString,
    pub(super) simulator_url: String,
}

/// A worker process and the port of its operations server.
struct Worker {
    name: &'static str,
    port: Port,
    process: Option<Process>,
}

/// The running processes.
pub(super) struct Fleet {
    pub(super) links: Links,
    pub(super) simulator: SimulatorProcess,
    // Workers before the servers, so that they are stopped first.
    workers: [Worker; 2],
    pub(super) servers: Servers,
    pub(super) folder: Folder,
    pub(super) http: Client,
    pub(super) binary: PathBuf,
    keep: bool,
}

/// The processes that keep running after the demo.
pub(super) struct Left {
    /// Process ids to signal, in this order, to stop everything.
    pub(super) pids: Vec<u32>,
    /// Ports of the workers' operations servers.
    pub(super) ports: Vec<u16>,
}

impl Fleet {
    /// Starts the servers and the simulator, prepares the database and the broker, and imports the
    /// tracker document, but does not start the workers. `binary` is this program. With `keep`,
    /// the processes may be left running.
    pub(super) async fn start(
        binary: PathBuf,
        keep: bool,
        report: impl Fn(&str) + Send + 'static,
    ) -> anyhow::Result<(Self, World)> {
        let folder = Folder::create()?;
        let log = std::fs::File::create_new(folder.path.join("simulator.log"))
            .context("cannot create the simulator's log")?;
        let witness = folder.path.join(WITNESS);
        let (servers, simulator) = tokio::try_join!(
            Servers::start(&binary, report),
            SimulatorProcess::start_logging(&binary, &witness, log.into())
        )?;
        let database_url: SecretString = servers.create_database(DATABASE, None).await?.into();
        let worker_url = migrate(&database_url).await?;
        let (administrator, producer, worker) = users(&servers).await?;
        let links = Links {
            database_url,
            worker_url,
            amqp_url: administrator,
            producer_amqp_url: producer,
            worker_amqp_url: worker,
            keyring: Keyring::fresh_setting(),
            simulator_url: simulator.url.clone(),
        };
        let lanes: Vec<_> = pipelines::registry()
            .iter()
            .map(|pipeline| pipeline.lane)
            .collect();
        let declaring = topology::declare(&links.amqp_url, &lanes, topology::Outdated::Remove);
        declaring.await.context("cannot declare the topology")?;
        let world = World::new(&links.simulator_url);
        simulator.client.load_state(&world.state).await?;
        import(&links, &world).await?;
        register_producers(&links).await?;
        let worker = |name| {
            Ok::<_, anyhow::Error>(Worker {
                name,
                port: ports::reserve().context("no free port")?,
                process: None,
            })
        };
        let workers = [worker("worker-1")?, worker("worker-2")?];
        let http = Client::builder()
            .no_proxy()
            .timeout(REQUEST_LIMIT)
            .build()?;
        Ok((
            Self {
                links,
                simulator,
                workers,
                servers,
                folder,
                http,
                binary,
                keep,
            },
            world,
        ))
    }

    /// Starts the workers that are not running, and waits until they are ready.
    pub(super) async fn start_workers(&mut self) -> anyhow::Result<()> {
        let (binary, folder, links, keep) =
            (&self.binary, &self.folder.path, &self.links, self.keep);
        for worker in self
            .workers
            .iter_mut()
            .filter(|worker| worker.process.is_none())
        {
            worker.process = Some(launch(worker, binary, folder, links, keep)?);
        }
        let http = &self.http;
        let ready = self.workers.iter_mut().map(async |worker| {
            let url = format!("http://127.0.0.1:{}/readyz", worker.port.number());
            let process = worker
                .process
                .as_mut()
                .context("it was started just above")?;
            process
                .wait_ready(READY_LIMIT, async || is_ok(http, &url).await)
                .await
        });
        join_all(ready).await.into_iter().collect()
    }

    /// Returns the process id of the worker to be killed.
    pub(super) fn victim(&self) -> Option<u32> {
        self.workers[0].process.as_ref().and_then(Process::id)
    }

    /// Kills that worker with SIGKILL, and waits until it is gone.
    pub(super) async fn kill_victim(&mut self) {
        if let Some(process) = self.workers[0].process.take() {
            process.stop(Signal::KILL, REQUEST_LIMIT).await;
        }
    }

    /// Returns an error if a worker has ended by itself.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.workers
            .iter_mut()
            .filter_map(|worker| worker.process.as_mut())
            .try_for_each(Process::check_running)
    }

    /// Returns the number of jobs that the running workers have taken over.
    pub(super) async fn takeovers(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for worker in &self.workers {
            let url = format!("http://127.0.0.1:{}/metrics", worker.port.number());
            let text = self
                .http
                .get(&url)
                .send()
                .await
                .and_then(reqwest::Response::error_for_status)?
                .text()
                .await?;
            sum += counted(&text, telemetry::names::TAKEOVERS);
        }
        Ok(sum)
    }

    /// Returns the path of the simulator's log of every request.
    pub(super) fn witness(&self) -> PathBuf {
        self.folder.path.join(WITNESS)
    }

    /// Stops everything in order: the workers drain first. Deletes the logs unless `keep_logs`.
    pub(super) async fn stop(mut self, keep_logs: bool) -> anyhow::Result<()> {
        let processes = self
            .workers
            .iter_mut()
            .filter_map(|worker| worker.process.take());
        join_all(processes.map(|process| process.stop(Signal::TERM, DRAIN_LIMIT))).await;
        self.simulator.stop().await?;
        self.servers.stop().await;
        self.folder.kept = keep_logs;
        Ok(())
    }

    /// Stops everything at once after an error. Returns a text with the path of the logs.
    pub(super) fn abandon(mut self) -> String {
        self.folder.kept = true;
        format!(
            "the logs of the workers and the witness log are in {}",
            self.folder.path.display()
        )
    }

    /// Leaves everything running after the demo.
    pub(super) async fn leave(mut self) -> anyhow::Result<Left> {
        let simulator = self.simulator.detach().await?;
        let guard = self.servers.detach().await?;
        self.folder.kept = true;
        let ports = self
            .workers
            .iter()
            .map(|worker| worker.port.number())
            .collect();
        let workers = self
            .workers
            .into_iter()
            .filter_map(|worker| worker.process?.leave());
        Ok(Left {
            pids: workers.chain([simulator, guard]).collect(),
            ports,
        })
    }
}

fn launch(
    worker: &Worker,
    binary: &Path,
    folder: &Path,
    links: &Links,
    keep: bool,
) -> anyhow::Result<Process> {
    let make = if keep { Launch::lasting } else { Launch::new };
    let mut launch = make(worker.name, binary, folder, Abrupt::Kill)?;
    launch.command.arg("worker");
    for (name, value) in environment(links) {
        launch.command.env(name, value);
    }
    launch
        .command
        .env("DISPATCH_AMQP_URL", links.worker_amqp_url.expose_secret());
    launch.command.env(
        "DISPATCH_OPS_LISTEN",
        format!("127.0.0.1:{}", worker.port.number()),
    );
    launch.spawn()
}

/// Returns the environment of a worker, which also serves for inspecting the demo.
pub(super) fn environment(links: &Links) -> Vec<(&'static str, String)> {
    let simulator = &links.simulator_url;
    vec![
        (
            "DISPATCH_DATABASE_URL",
            links.worker_url.expose_secret().to_owned(),
        ),
        (
            "DISPATCH_AMQP_URL",
            links.amqp_url.expose_secret().to_owned(),
        ),
        ("DISPATCH_KEYRING", links.keyring.expose_secret().to_owned()),
        ("DISPATCH_AZURE_DEVOPS_PROFILE_URL", simulator.clone()),
        ("DISPATCH_AZURE_DEVOPS_GRAPH_URL", simulator.clone()),
        ("DISPATCH_AZURE_DEVOPS_SEARCH_URL", simulator.clone()),
        ("DISPATCH_AZURE_DEVOPS_URL", simulator.clone()),
        ("DISPATCH_DISCORD_URL", format!("{simulator}/api/v10")),
        ("DISPATCH_ALLOW_HTTP_LOOPBACK", "true".to_owned()),
        // The simulated channel accepts any rate; the real rate limit would only slow down the
        // demo.
        ("DISPATCH_RATES", "discord=200/1".to_owned()),
    ]
}

/// Returns RabbitMQ URLs for an administrator, a producer and a worker; the latter two have the
/// permissions that the documentation lists.
async fn users(servers: &Servers) -> anyhow::Result<(SecretString, SecretString, SecretString)> {
    let administrator = servers.create_vhost(VHOST).await?;
    let password = || HEXLOWER.encode(&rand::random::<[u8; 16]>());
    let producer = servers
        .create_user(VHOST, PRODUCER, &password(), &PRODUCER_RIGHTS)
        .await?;
    let worker = servers
        .create_user(VHOST, "dispatch-worker", &password(), &WORKER_RIGHTS)
        .await?;
    Ok((administrator.into(), producer.into(), worker.into()))
}

/// Registers the demo's producer, and the administrator for publishing by hand.
async fn register_producers(links: &Links) -> anyhow::Result<()> {
    let administrator = broker::user_of(&links.amqp_url.clone().into())?;
    let store = Store::new(store::pool(&links.database_url, 1)?);
    let actor = demo();
    for name in [PRODUCER, &administrator] {
        let any = vec!["*".to_owned()];
        let (sources, organizations) = (vec![SOURCE.to_owned()], any.clone());
        let new = Producer {
            name: name.to_owned(),
            sources,
            organizations,
            reply_queues: Vec::new(),
            applications: any,
        };
        operations::register_producer(&store, &actor, &new)
            .await
            .context("cannot register the producers")?;
    }
    Ok(())
}

/// Returns the actor for the audit log.
pub(super) fn demo() -> Actor {
    Actor {
        who: "demo".to_owned(),
        role: Role::Admin,
        reason: None,
        request: None,
    }
}

/// Migrates the database, and creates the login of the workers. Logging is off, so that the output
/// does not list each migration.
async fn migrate(database_url: &SecretString) -> anyhow::Result<SecretString> {
    let password = HEXLOWER.encode(&rand::random::<[u8; 20]>());
    let login = WorkerLogin::parse(&format!("{WORKER}:{password}").into())?;
    let actor = demo();
    let migrating = store::migrate_with(database_url, Some(&login), Some(&actor));
    migrating
        .with_subscriber(NoSubscriber::new())
        .await
        .context("cannot migrate")?;
    Ok(with_user(database_url.expose_secret(), WORKER, &password)?.into())
}

async fn import(links: &Links, world: &World) -> anyhow::Result<()> {
    let keyring = Keyring::parse(&links.keyring)?;
    operations::import_tracker(&links.database_url, &keyring, &demo(), &world.document)
        .await
        .map(drop)
        .context("cannot import the tracker document")
}

pub(super) async fn is_ok(http: &Client, url: &str) -> bool {
    http.get(url)
        .send()
        .await
        .is_ok_and(|response| response.status() == StatusCode::OK)
}

/// Returns the value of a counter without labels in Prometheus' text format, or 0 if it is absent.
fn counted(metrics: &str, name: &str) -> u64 {
    let value = |line: &str| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    };
    metrics.lines().find_map(value).unwrap_or_default()
}

/// The folder for logs and the witness log. It is removed on drop unless it is kept.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    kept: bool,
}

impl Folder {
    fn create() -> anyhow::Result<Self> {
        let name = format!(
            "dispatch-demo-{}",
            HEXLOWER.encode(&rand::random::<[u8; 6]>())
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, kept: false })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.kept {
            // A folder that cannot be removed remains in the temporary directory.
            let _left_behind = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Waits until `holds` returns true, checking repeatedly, at most until `deadline`.
pub(super) async fn until(
    deadline: Instant,
    what: &str,
    mut holds: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    const EVERY: Duration = Duration::from_millis(100);
    let began = Instant::now();
    while !holds().await? {
        if Instant::now() > deadline {
            bail!(
                "this did not happen within {:.1} s: {what}",
                began.elapsed().as_secs_f64()
            );
        }
        tokio::time::sleep(EVERY).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_from_a_scrape_and_not_from_its_description() {
        let text = "# HELP dispatch_takeovers_total Jobs taken\n# TYPE dispatch_takeovers_total counter\ndispatch_takeovers_total 7\n";
        assert_eq!(counted(text, "dispatch_takeovers_total"), 7);
        assert_eq!(counted(text, "dispatch_takeovers"), 0);
    }
}
