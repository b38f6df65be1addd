//! The world of one test: database, vhost, keyring, simulator, workers.

mod publishing;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use deadpool_postgres::Pool;
use dispatch_worker::broker::{
    CONTROL_QUEUE, EXCHANGE, INTAKE_QUEUE, KEY_JOB, Outgoing, PARKED_QUEUE, Publisher, topology,
};
use dispatch_worker::devkit::guard::Command;
use dispatch_worker::devkit::servers::Rights;
use dispatch_worker::devkit::simulator::process::SimulatorProcess;
use dispatch_worker::devkit::simulator::witness::{self, Entry};
use dispatch_worker::engine::Lane;
use dispatch_worker::pipelines::registry;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::store::Store;
use dispatch_worker::tracker::{ImportCounts, TrackerDocument, import};
use secrecy::SecretString;
use tokio::sync::OnceCell;

use super::alone::Place;
use super::database::{TestDatabase, unaudited};
use super::logs::{ServersLogs, logs_in};
use super::recorder::EventRecorder;
use super::servers::{BINARY, Run, run};
use super::worker::{PAGES, WorkerOptions, WorkerProcess};
use super::{acme, canaries};
use crate::providers::contracts;

/// A database, a vhost with the topology, and a keyring. Dropping the world removes database and
/// vhost; its files are kept if the test has failed.
pub(crate) struct TestWorld {
    run: &'static Run,
    pub(crate) database: TestDatabase,
    pub(crate) amqp_url: SecretString,
    pub(crate) worker_amqp_url: SecretString,
    pub(crate) keyring_setting: SecretString,
    pub(crate) keyring: Arc<Keyring>,
    pub(super) folder: Folder,
    simulator: OnceCell<SimulatorProcess>,
    publisher: OnceCell<Publisher>,
    workers: AtomicU32,
    commands: AtomicU32,
    /// The ports of all operations servers so far.
    ops_ports: Mutex<Vec<u16>>,
    recorder: OnceCell<EventRecorder>,
    servers_logs: ServersLogs,
    is_planted: bool,
    _place: Arc<Place>,
}

impl TestWorld {
    /// Creates an empty world.
    pub(crate) async fn new() -> Self {
        Self::on(run().await).await
    }

    /// Creates a world as [`TestWorld::acme`] does, on servers that no other test uses, so that
    /// the test may kill them.
    pub(crate) async fn with_own_servers() -> Self {
        Self::acme_on(Box::leak(Box::new(Run::private().await))).await
    }

    async fn on(run: &'static Run) -> Self {
        let place = Place::beside().await;
        let servers_logs = ServersLogs::from_now_on(run.servers.dir.as_deref());
        let name = run.world_name();
        let database = TestDatabase::named(run, name.clone()).await;
        let amqp_url = run
            .servers
            .create_vhost(&name)
            .await
            .map(SecretString::from)
            .expect("a vhost");
        topology::declare(&amqp_url, &lanes(), topology::Outdated::Remove)
            .await
            .expect("a topology");
        let worker_amqp_url = run.worker_amqp_url(&name).await;
        let keyring_setting = Keyring::fresh_setting();
        let keyring = Arc::new(Keyring::parse(&keyring_setting).expect("a fresh keyring is valid"));
        Self {
            run,
            database,
            amqp_url,
            worker_amqp_url,
            keyring_setting,
            keyring,
            folder: Folder::new(&name),
            simulator: OnceCell::new(),
            publisher: OnceCell::new(),
            workers: AtomicU32::new(0),
            commands: AtomicU32::new(0),
            ops_ports: Mutex::default(),
            recorder: OnceCell::new(),
            servers_logs,
            is_planted: false,
            _place: place,
        }
    }

    /// Creates a world with the organization `acme`; see [`acme`].
    pub(crate) async fn acme() -> Self {
        Self::acme_on(run().await).await
    }

    /// Creates a world as [`TestWorld::acme`] does, for a test that measures time: no other test
    /// has a world meanwhile.
    pub(crate) async fn acme_alone() -> Self {
        let _place = Place::alone().await;
        Self::acme().await
    }

    async fn acme_on(run: &'static Run) -> Self {
        let world = Self::on(run).await;
        world.recorder().await;
        let simulator = world.simulator().await;
        simulator
            .client
            .load_state(&acme::providers())
            .await
            .expect("the simulator accepts the state");
        world.import(&acme::document(&simulator.url)).await;
        world
    }

    /// Kills or starts one of the servers, through the guard process.
    pub(crate) async fn server_command(&self, command: Command) {
        self.run
            .servers
            .command(command)
            .await
            .expect("the guard executes the command");
    }

    /// Returns the folder of the servers' data and settings; the servers must be private.
    pub(crate) fn servers_folder(&self) -> PathBuf {
        self.run.servers.dir.clone().expect("servers of this run")
    }

    /// Returns the folder of the world's files, which is removed when the test has passed.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.database.pool
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(self.database.pool.clone())
    }

    pub(crate) async fn publisher(&self) -> &Publisher {
        let connect = async || {
            Publisher::connect(&self.amqp_url)
                .await
                .expect("RabbitMQ accepts a publisher")
        };
        self.publisher.get_or_init(connect).await
    }

    /// Returns the simulator, and starts it with an empty state on the first call.
    pub(crate) async fn simulator(&self) -> &SimulatorProcess {
        let witness = self.witness_path();
        let start = async || {
            SimulatorProcess::start(Path::new(BINARY), &witness)
                .await
                .expect("the simulator starts")
        };
        self.simulator.get_or_init(start).await
    }

    pub(super) fn simulator_url(&self) -> Option<&str> {
        self.simulator.get().map(|simulator| simulator.url.as_str())
    }

    pub(super) fn smtp_url(&self) -> Option<&str> {
        self.simulator
            .get()
            .map(|simulator| simulator.smtp_url.as_str())
    }

    fn witness_path(&self) -> PathBuf {
        self.folder.path().join("witness.jsonl")
    }

    /// Returns every request that the simulator has received; none if it has not been started.
    pub(crate) fn witness(&self) -> Vec<Entry> {
        if self.simulator.get().is_none() {
            return Vec::new();
        }
        witness::read(&self.witness_path()).expect("a witness log")
    }

    /// Imports a document as `dispatch tracker import` does, including the release of waiting
    /// jobs.
    pub(crate) async fn import(&self, document: &TrackerDocument) -> ImportCounts {
        let mut client = self.pool().get().await.expect("a connection");
        import(&mut client, &self.keyring, document, unaudited)
            .await
            .expect("a valid document")
            .counts
    }

    /// Creates a user of RabbitMQ with these rights in this world's vhost, or changes its rights;
    /// returns its URL.
    pub(crate) async fn amqp_user(&self, rights: &Rights<'_>) -> String {
        let made = self.run.servers.create_user(
            &self.database.name,
            &self.database.name,
            "canary-amqp-password",
            rights,
        );
        made.await.expect("RabbitMQ creates a user")
    }

    /// Removes the user of [`TestWorld::amqp_user`].
    pub(crate) async fn remove_amqp_user(&self) {
        self.run
            .servers
            .delete_user(&self.database.name)
            .await
            .expect("RabbitMQ removes the user");
    }

    /// Starts a worker without waiting until it is ready.
    pub(crate) fn worker(&self, options: &WorkerOptions) -> WorkerProcess {
        WorkerProcess::start(
            self,
            self.workers.fetch_add(1, Ordering::Relaxed) + 1,
            options,
        )
    }

    pub(super) fn serves_at(&self, port: u16) {
        self.ops_ports
            .lock()
            .expect("the lock is not poisoned")
            .push(port);
    }

    /// Returns the pages of the operations servers of all running workers.
    pub(super) async fn pages(&self) -> Vec<(String, String)> {
        let ports = self
            .ops_ports
            .lock()
            .expect("the lock is not poisoned")
            .clone();
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("an HTTP client");
        let mut pages = Vec::new();
        for (port, path) in ports.iter().flat_map(|port| PAGES.map(|path| (port, path))) {
            let Ok(answer) = http
                .get(format!("http://127.0.0.1:{port}{path}"))
                .send()
                .await
            else {
                continue;
            };
            pages.push((
                format!("the page {path} of a worker"),
                answer.text().await.unwrap_or_default(),
            ));
        }
        pages
    }

    /// Returns the logs of the workers, commands and simulator, and what the servers have logged
    /// meanwhile, by file name.
    pub(super) fn logs(&self) -> Vec<(String, String)> {
        let own = logs_in(self.folder.path());
        own.into_iter().chain(self.servers_logs.read()).collect()
    }

    /// Returns the path of a new file for the output of a command.
    pub(super) fn command_log(&self) -> PathBuf {
        self.folder.path().join(format!(
            "command-{}.log",
            self.commands.fetch_add(1, Ordering::Relaxed) + 1
        ))
    }

    /// Returns the recorder of outcome events, which records from the first call on.
    pub(super) async fn recorder(&self) -> &EventRecorder {
        self.recorder
            .get_or_init(|| EventRecorder::new(&self.amqp_url))
            .await
    }

    /// Returns the recorder of outcome events, if it has been started.
    pub(super) fn started_recorder(&self) -> Option<&EventRecorder> {
        self.recorder.get()
    }

    /// Skips the checks at the end, for a world with planted breaches.
    pub(super) fn is_planted(&mut self) {
        self.is_planted = true;
    }

    /// Returns what no world may contain, whatever its test checks: requests that no vendor
    /// describes, and secrets in plaintext.
    pub(super) fn broken_at_the_end(&self) -> Vec<String> {
        let breaches = contracts::breaches(&self.witness());
        breaches
            .into_iter()
            .chain(canaries::found_at_the_end(self))
            .collect()
    }
}

impl Drop for TestWorld {
    fn drop(&mut self) {
        if !self.is_planted && !std::thread::panicking() {
            let broken = self.broken_at_the_end();
            assert!(broken.is_empty(), "{}", broken.join("\n"));
        }
        self.run.remove(self.database.name.clone());
    }
}

/// The folder of a world's files.
pub(super) struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the world's logs are in {}", self.0.display());
        } else {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }
}

/// Returns an intake message with any body, as a well-behaved producer sends it.
pub(crate) fn intake(body: impl Into<Vec<u8>>) -> Outgoing {
    Outgoing {
        exchange: EXCHANGE,
        routing_key: KEY_JOB.to_owned(),
        mandatory: true,
        body: body.into(),
        ..Outgoing::default()
    }
}

pub(crate) fn lanes() -> Vec<Lane> {
    registry().iter().map(|pipeline| pipeline.lane).collect()
}

/// Returns every queue of a world.
pub(crate) fn queues() -> impl Iterator<Item = &'static str> {
    lanes()
        .into_iter()
        .map(|lane| lane.queue)
        .chain([INTAKE_QUEUE, CONTROL_QUEUE, PARKED_QUEUE])
}
