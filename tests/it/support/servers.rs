//! The servers of a run: started once, by the first test that needs them, and gone when the process has ended.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use data_encoding::HEXLOWER;
use dispatch_worker::broker::user_of;
use dispatch_worker::config;
use dispatch_worker::devkit::servers::{Servers, WORKER_RIGHTS, with_user};
use dispatch_worker::store::{self, WorkerLogin};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_dispatch");

/// The role that every worker of a test logs in with, one for the whole cluster.
pub(crate) const WORKER: &str = "dispatch_test_worker";

/// RabbitMQ's management API is looked for here where the servers are somebody else's.
const MANAGEMENT_PORT: u16 = 15_672;

/// Everything a run has once.
pub(crate) struct Run {
    pub(crate) servers: Servers,
    /// Started here, and gone with this process.
    is_private: bool,
    /// Migrated; nobody stays connected to it.
    template: String,
    /// Unlike that of any other run on the same servers.
    name: String,
    count: AtomicU32,
    worker_user: OnceCell<()>,
    /// Worlds that have begun and not ended.
    worlds: AtomicU32,
    /// Of servers that are somebody else's: what removes worlds that have ended.
    cleaners: Mutex<Vec<JoinHandle<()>>>,
}

static RUN: OnceCell<Run> = OnceCell::const_new();

/// The servers of this run, started if they are not yet.
pub(crate) async fn run() -> &'static Run {
    RUN.get_or_init(Run::start).await
}

impl Run {
    async fn start() -> Self {
        // Whoever installed one first has done the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        match config::test_servers() {
            Some((database, amqp)) => {
                let servers = Servers::external(&database, &amqp, Some(&management_of(&amqp)));
                Self::on(servers.expect("URLs of servers")).await
            }
            None => {
                let run = Self::private().await;
                calm(&run.servers.database_url).await;
                run
            }
        }
    }

    /// Servers that nobody else uses.
    pub(super) async fn private() -> Self {
        let started = Servers::start(Path::new(BINARY), |line| eprintln!("{line}")).await;
        Self::on(started.unwrap_or_else(|error| panic!("tests need Postgres and RabbitMQ: {error:#}"))).await
    }

    async fn on(servers: Servers) -> Self {
        let is_private = servers.guard_pid().is_some();
        let name = format!("it_{}", HEXLOWER.encode(&rand::random::<[u8; 4]>()));
        let template = format!("{name}_template");
        let url = servers.create_database(&template, None).await.expect("a database for the template");
        let login = format!("{WORKER}:{}", worker_password(&servers));
        let login = WorkerLogin::parse(&login.into()).expect("a login that is right");
        let migrated = store::migrate_with(&SecretString::from(url.clone()), Some(&login), None).await;
        migrated.expect("the migrations apply to an empty database");
        let administrator = user_of(&SecretString::from(servers.amqp_url.clone()).into()).expect("a URL of RabbitMQ");
        run_sql(&url, &format!("INSERT INTO producers VALUES ('{administrator}', '{{*}}', '{{*}}', '{{*}}', '{{*}}')")).await;
        Self {
            servers,
            is_private,
            template,
            name,
            count: AtomicU32::new(0),
            worker_user: OnceCell::new(),
            worlds: AtomicU32::new(0),
            cleaners: Mutex::default(),
        }
    }

    /// A name for a test's database and vhost.
    pub(crate) fn fresh_name(&self) -> String {
        format!("{}_{}", self.name, self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// A name for a world, which is to be [removed](Self::remove).
    pub(crate) fn world_name(&self) -> String {
        self.worlds.fetch_add(1, Ordering::Relaxed);
        self.fresh_name()
    }

    /// A migrated, empty database; returns its URL.
    pub(crate) async fn create_database(&self, name: &str) -> SecretString {
        let url = self.servers.create_database(name, Some(&self.template)).await;
        SecretString::from(url.expect("a database from the template"))
    }

    /// RabbitMQ's URL for the workers of a world: a user with the rights that the README gives one.
    pub(crate) async fn worker_amqp_url(&self, vhost: &str) -> SecretString {
        let user = format!("{}_worker", self.name);
        let make = async || {
            let made = self.servers.create_user(vhost, &user, "canary-worker-password", &WORKER_RIGHTS).await;
            SecretString::from(made.expect("RabbitMQ makes a user"))
        };
        // RabbitMQ refuses one of two who make the same user at a time; afterwards, each world adds its rights.
        self.worker_user.get_or_init(async || drop(make().await)).await;
        make().await
    }

    /// How a worker connects to a database: with no more rights than it needs.
    pub(crate) fn worker_url(&self, database: &SecretString) -> SecretString {
        let url = with_user(database.expose_secret(), WORKER, &worker_password(&self.servers));
        url.expect("a URL of Postgres").into()
    }

    /// Removes a world. RabbitMQ is spared its queues at once; a database of a private Postgres goes with its server, since
    /// dropping it would wait for a checkpoint.
    pub(crate) fn remove(&'static self, name: String) {
        // A thread, as a runtime cannot be built inside the test's.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let removed = runtime.block_on(async {
                self.servers.delete_vhost(&name).await?;
                if self.is_private { Ok(()) } else { self.servers.drop_database(&name).await }
            });
            if let Err(error) = removed {
                eprintln!("{name} is left behind: {error:#}");
            }
        });
        let is_last = self.worlds.fetch_sub(1, Ordering::Relaxed) == 1;
        if self.is_private {
            return;
        }
        let mut cleaners = self.cleaners.lock().expect("nobody panics with it");
        cleaners.push(cleaner);
        // Nobody is waited for while another world is open: dropping a database waits for every client that is just signing in,
        // and the task of such a client may be the one that drops this world.
        if is_last {
            cleaners.drain(..).for_each(|cleaner| drop(cleaner.join()));
        }
    }
}

/// Nobody crashes the servers that tests share, and many databases are made at once: waiting for the disk would only be slow.
async fn calm(url: &str) {
    run_sql(url, "ALTER SYSTEM SET fsync = off").await;
    run_sql(url, "SELECT pg_reload_conf()").await;
}

async fn run_sql(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("Postgres answers");
    let work = async move { client.batch_execute(sql).await };
    let (done, _) = tokio::join!(work, connection);
    done.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
}

/// Known to whoever may make the role on these servers: several runs that share them do not lock each other out. It is a canary.
fn worker_password(servers: &Servers) -> String {
    format!("canary-{}", HEXLOWER.encode(&Sha256::digest(format!("{WORKER} {}", servers.database_url))))
}

/// Where RabbitMQ's management API is, with the credentials of `amqp`.
fn management_of(amqp: &str) -> String {
    let mut url = reqwest::Url::parse(&amqp.replacen("amqp://", "http://", 1)).expect("DISPATCH_TEST_AMQP_URL is amqp://…");
    url.set_path("");
    url.set_port(Some(MANAGEMENT_PORT)).expect("an http URL takes a port");
    url.into()
}
