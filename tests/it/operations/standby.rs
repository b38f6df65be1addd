//! A primary that is lost for good, and a standby that replaces it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use dispatch_worker::devkit::guard::Command as ServerCommand;
use dispatch_worker::devkit::ports::{self, Port};
use dispatch_worker::job::JobState;
use dispatch_worker::store;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::{Child, Command};

use crate::support::{Checks, TestDatabase, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// The limit for the first success, from the standby's promotion.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);
const JOBS: usize = 20;
/// Sends the standby a signal when the test's thread ends.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A streaming replica of a world's Postgres. It is killed when dropped; its data are deleted with
/// those of the servers.
struct Standby {
    port: Port,
    _process: Child,
}

impl Standby {
    /// Starts a standby. From then on, every commit waits for it.
    async fn of(world: &TestWorld) -> Self {
        let database = &world.database;
        let programs = PathBuf::from(
            database
                .one("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
                .await,
        );
        let owner = std::fs::metadata(database.one("SHOW data_directory").await)
            .expect("the data are on this machine");
        let folder = world.servers_folder().join("standby");
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .expect("a new folder");
        chown(&folder, Some(owner.uid()), Some(owner.gid()))
            .expect("it belongs to the server's user");
        let program = |name: &str| {
            let mut command = lasting_as_long_as_this(&programs.join(name));
            let log = File::create(world.folder().join(format!("{name}.log"))).expect("a log file");
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle"))
                .stderr(log)
                .current_dir(&folder);
            command.uid(owner.uid()).gid(owner.gid()).kill_on_drop(true);
            command
        };
        let mut copy = program("pg_basebackup");
        copy.args([
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--no-sync",
            "--pgdata",
        ])
        .arg(&folder);
        copy.arg("--dbname").arg(database.url.expose_secret());
        let status = tokio::time::timeout(SOON, copy.status())
            .await
            .expect("it ends")
            .expect("it runs");
        assert!(status.success(), "pg_basebackup: {status}");
        let port = ports::reserve().expect("a free port");
        let mut server = program("postgres");
        server.arg("-D").arg(&folder);
        // A standby requires at least the `max_connections` of its primary.
        for setting in [
            &format!("port={}", port.number()),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=300",
        ] {
            server.args(["-c", setting]);
        }
        let standby = Self {
            port,
            _process: server.spawn().expect("it starts"),
        };
        database
            .rows("ALTER SYSTEM SET synchronous_standby_names = '*'")
            .await;
        database.rows("SELECT pg_reload_conf()").await;
        wait_for("the standby to follow", SOON, async || {
            let following = "SELECT coalesce(max(state || ' ' || sync_state), 'nobody follows') FROM pg_stat_replication";
            let state = database.one(following).await;
            if state == "streaming sync" { Ok(()) } else { Err(state) }
        })
        .await;
        standby
    }

    /// Returns the URL of the primary with the standby's address in front of its own.
    fn in_front_of(&self, primary: &SecretString) -> String {
        let url = Url::parse(primary.expose_secret()).expect("a URL");
        let at = format!("127.0.0.1:{}", url.port().expect("it has a port"));
        url.as_str()
            .replacen(&at, &format!("127.0.0.1:{},{at}", self.port.number()), 1)
    }

    /// Promotes the standby to primary. Returns its database.
    async fn promote(&self, primary: &TestDatabase) -> TestDatabase {
        let here = |primary: &SecretString| {
            let mut url = Url::parse(primary.expose_secret()).expect("a URL");
            url.set_port(Some(self.port.number()))
                .expect("it has a host");
            SecretString::from(url.to_string())
        };
        let (url, worker_url) = (here(&primary.url), here(&primary.worker_url));
        let database = TestDatabase {
            pool: store::pool(&url, 4).expect("a pool"),
            url,
            worker_url,
            name: primary.name.clone(),
        };
        assert_eq!(database.one("SELECT pg_promote()").await, "t");
        database
    }
}

fn lasting_as_long_as_this(program: &Path) -> Command {
    if !Path::new(SETPRIV).exists() {
        return Command::new(program);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "QUIT", "--"]).arg(program);
    command
}

#[tokio::test]
async fn work_continues_at_the_promoted_standby_without_loss_after_the_primary_is_lost() {
    let mut world = TestWorld::with_own_servers().await;
    let standby = Standby::of(&world).await;
    let both = format!(
        "{}?target_session_attrs=read-write",
        standby.in_front_of(&world.database.worker_url)
    );
    let environment = BTreeMap::from([("DISPATCH_DATABASE_URL".to_owned(), both)]);
    let worker = world.worker(&WorkerOptions {
        environment,
        concurrency: Some(8),
        ..WorkerOptions::default()
    });
    worker.ready().await;
    let mut keys: Vec<String> = (0..JOBS).map(|number| format!("job-{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let to = if number % 2 == 0 {
            acme::ANN
        } else {
            acme::BOB
        };
        let event = world.assign(acme::WORK_ITEM, Some(to)).await;
        world.publish_job(&acme::job(key, &event)).await;
    }
    world
        .wait_job_state(&keys[0], JobState::Succeeded, SOON)
        .await;
    world.server_command(ServerCommand::CrashPostgres).await;
    world.database = standby.promote(&world.database).await;
    let promoted = Instant::now();
    let event = world.assign(acme::LONE_ITEM, Some(acme::BOB)).await;
    world.publish_job(&acme::job("after", &event)).await;
    world
        .wait_job_state("after", JobState::Succeeded, SOON)
        .await;
    assert!(
        promoted.elapsed() < GOES_ON_WITHIN,
        "{:?}",
        promoted.elapsed()
    );
    keys.push("after".to_owned());
    for key in &keys {
        world.wait_job_state(key, JobState::Succeeded, SOON).await;
    }
    worker.ready().await;
    Checks::default().hold(&world).await;
    // The world inspects its database when it is dropped.
    drop((worker, world, standby));
}
