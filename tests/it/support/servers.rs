//! The servers of a run: the first test that needs them starts them, and they stop when the
//! process ends.

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

use super::external;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_dispatch");

/// The role that every worker of a test logs in with; one for the whole cluster.
pub(crate) const WORKER: &str = "dispatch_test_worker";

/// The port of RabbitMQ's management API if the servers are not private.
const MANAGEMENT_PORT: u16 = 15_672;

/// The state that all tests of a run share.
pub(crate) struct Run {
    pub(crate) servers: Servers,
    /// Whether the servers were started here and stop with this process.
    is_private: bool,
    /// The name of the migrated template database; no connection to it stays open.
    template: String,
    /// A name that no other run on the same servers has.
    name: String,
    count: AtomicU32,
    worker_user: OnceCell<()>,
    /// The number of open worlds.
    worlds: AtomicU32,
    /// The threads that remove ended worlds from servers that are not private.
    cleaners: Mutex<Vec<JoinHandle<()>>>,
}

static RUN: OnceCell<Run> = OnceCell::const_new();

/// Returns the servers of this run, and starts them on the first call.
pub(crate) async fn run() -> &'static Run {
    RUN.get_or_init(Run::start).await
}

impl Run {
    async fn start() -> Self {
        // An error means that the same provider is installed already.
        drop(rustls::crypto::ring::default_provider().install_default());
        match config::test_servers() {
            Some((database, amqp)) => {
                let management = management_of(&amqp);
                if let Err(why) = external::check(&database, &amqp, &management).await {
                    panic!("{why}");
                }
                let servers = Servers::external(&database, &amqp, Some(&management));
                Self::on(servers.expect("URLs of servers")).await
            }
            None => {
                let run = Self::private().await;
                calm(&run.servers.database_url).await;
                run
            }
        }
    }

    /// Starts servers that no other test uses.
    pub(super) async fn private() -> Self {
        let started = Servers::start(Path::new(BINARY), |line| eprintln!("{line}")).await;
        Self::on(
            started.unwrap_or_else(|error| panic!("tests need Postgres and RabbitMQ: {error:#}")),
        )
        .await
    }

    async fn on(servers: Servers) -> Self {
        let is_private = servers.guard_pid().is_some();
        let name = format!("it_{}", HEXLOWER.encode(&rand::random::<[u8; 4]>()));
        let template = format!("{name}_template");
        let url = servers
            .create_database(&template, None)
            .await
            .expect("a database for the template");
        let login = format!("{WORKER}:{}", worker_password(&servers));
        let login = WorkerLogin::parse(&login.into()).expect("a valid login");
        let migrated =
            store::migrate_with(&SecretString::from(url.clone()), Some(&login), None).await;
        migrated.expect("the migrations apply to an empty database");
        let administrator = user_of(&SecretString::from(servers.amqp_url.clone()).into())
            .expect("a URL of RabbitMQ");
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

    /// Returns a new name for a database and a vhost.
    pub(crate) fn fresh_name(&self) -> String {
        format!(
            "{}_{}",
            self.name,
            self.count.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// Returns a new name for a world, which the caller must [remove](Self::remove).
    pub(crate) fn world_name(&self) -> String {
        self.worlds.fetch_add(1, Ordering::Relaxed);
        self.fresh_name()
    }

    /// Creates a migrated, empty database; returns its URL.
    pub(crate) async fn create_database(&self, name: &str) -> SecretString {
        let url = self
            .servers
            .create_database(name, Some(&self.template))
            .await;
        SecretString::from(url.expect("a database from the template"))
    }

    /// Returns RabbitMQ's URL for the workers of a world: a user with the documented rights.
    pub(crate) async fn worker_amqp_url(&self, vhost: &str) -> SecretString {
        let user = format!("{}_worker", self.name);
        let make = async || {
            let made = self
                .servers
                .create_user(vhost, &user, "canary-worker-password", &WORKER_RIGHTS)
                .await;
            SecretString::from(made.expect("RabbitMQ creates a user"))
        };
        // RabbitMQ refuses one of two concurrent requests that create the same user; afterwards,
        // each world adds its rights.
        self.worker_user
            .get_or_init(async || drop(make().await))
            .await;
        make().await
    }

    /// Returns a worker's URL of a database, with no more rights than a worker needs.
    pub(crate) fn worker_url(&self, database: &SecretString) -> SecretString {
        let url = with_user(
            database.expose_secret(),
            WORKER,
            &worker_password(&self.servers),
        );
        url.expect("a URL of Postgres").into()
    }

    /// Removes a world. Its vhost is deleted at once, to relieve RabbitMQ of its queues. The
    /// database of a private Postgres goes away with its server, since dropping it would wait for
    /// a checkpoint.
    pub(crate) fn remove(&'static self, name: String) {
        // A separate thread, as a runtime cannot block inside the runtime of the test.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let removed = runtime.block_on(async {
                self.servers.delete_vhost(&name).await?;
                if self.is_private {
                    Ok(())
                } else {
                    self.servers.drop_database(&name).await
                }
            });
            if let Err(error) = removed {
                eprintln!("{name} is left behind: {error:#}");
            }
        });
        let is_last = self.worlds.fetch_sub(1, Ordering::Relaxed) == 1;
        if self.is_private {
            return;
        }
        let mut cleaners = self.cleaners.lock().expect("the lock is not poisoned");
        cleaners.push(cleaner);
        // The threads are joined only with the last world: dropping a database waits for every
        // client that is just signing in, and the Tokio task of such a client may be the one that
        // drops this world.
        if is_last {
            cleaners.drain(..).for_each(|cleaner| drop(cleaner.join()));
        }
    }
}

/// Turns off waits for the disk: shared servers never crash, and many databases are created at a
/// time.
async fn calm(url: &str) {
    run_sql(url, "ALTER SYSTEM SET fsync = off").await;
    run_sql(url, "SELECT pg_reload_conf()").await;
}

async fn run_sql(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .expect("Postgres answers");
    let work = async move { client.batch_execute(sql).await };
    let (done, _) = tokio::join!(work, connection);
    done.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
}

/// Derives the role's password from the server URL, so that several runs on the same servers agree
/// on it. It is a canary.
fn worker_password(servers: &Servers) -> String {
    format!(
        "canary-{}",
        HEXLOWER.encode(&Sha256::digest(format!(
            "{WORKER} {}",
            servers.database_url
        )))
    )
}

/// Returns the URL of RabbitMQ's management API, with the credentials of `amqp`.
fn management_of(amqp: &str) -> String {
    let mut url = reqwest::Url::parse(&amqp.replacen("amqp://", "http://", 1))
        .expect("DISPATCH_TEST_AMQP_URL is amqp://…");
    url.set_path("");
    url.set_port(Some(MANAGEMENT_PORT))
        .expect("an http URL takes a port");
    url.into()
}
