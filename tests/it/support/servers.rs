//! The servers of a run: started once, by the first test that needs them, and gone when the process has ended.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use dispatch_worker::config;
use dispatch_worker::devkit::servers::Servers;
use dispatch_worker::store;
use secrecy::SecretString;
use tokio::sync::OnceCell;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_dispatch");

/// RabbitMQ's management API is looked for here where the servers are somebody else's.
const MANAGEMENT_PORT: u16 = 15_672;

/// Everything a run has once.
pub(crate) struct Run {
    pub(crate) servers: Servers,
    /// Migrated; nobody stays connected to it.
    template: String,
    /// Unlike that of any other run on the same servers.
    name: String,
    count: AtomicU32,
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
        let servers = match config::test_servers() {
            Some((database, amqp)) => Servers::external(&database, &amqp, Some(&management_of(&amqp))).expect("URLs of servers"),
            None => {
                let started = Servers::start(Path::new(BINARY), |line| eprintln!("{line}")).await;
                started.unwrap_or_else(|error| panic!("tests need Postgres and RabbitMQ: {error:#}"))
            }
        };
        let name = format!("it_{}", data_encoding::HEXLOWER.encode(&rand::random::<[u8; 4]>()));
        let template = format!("{name}_template");
        let url = servers.create_database(&template, None).await.expect("a database for the template");
        store::migrate(&SecretString::from(url)).await.expect("the migrations apply to an empty database");
        Self { servers, template, name, count: AtomicU32::new(0) }
    }

    /// A name for a test's database and vhost.
    pub(crate) fn fresh_name(&self) -> String {
        format!("{}_{}", self.name, self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// A migrated, empty database; returns its URL.
    pub(crate) async fn create_database(&self, name: &str) -> SecretString {
        let url = self.servers.create_database(name, Some(&self.template)).await;
        SecretString::from(url.expect("a database from the template"))
    }
}

/// Where RabbitMQ's management API is, with the credentials of `amqp`.
fn management_of(amqp: &str) -> String {
    let mut url = reqwest::Url::parse(&amqp.replacen("amqp://", "http://", 1)).expect("DISPATCH_TEST_AMQP_URL is amqp://…");
    url.set_path("");
    url.set_port(Some(MANAGEMENT_PORT)).expect("an http URL takes a port");
    url.into()
}
