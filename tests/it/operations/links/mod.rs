//! The connections to Postgres and RabbitMQ: encrypted and verified, or refused with advice.

mod mail;
mod peers;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use dispatch_worker::broker::Publisher;
use dispatch_worker::devkit::guard::Command as ServerCommand;
use dispatch_worker::devkit::ports;
use dispatch_worker::fault::chain;
use dispatch_worker::job::JobState;
use dispatch_worker::store;
use dispatch_worker::tls_policy::Endpoint;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;

use crate::support::{BINARY, Checks, TestWorld, WorkerOptions, acme, run};
use peers::{Authority, GOOD, Identity, OVER, Peer, Protocol, Seen};

const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "canary-link-password";

/// Connects to a peer at `localhost`; returns the error, as no peer completes the protocol.
async fn connect(protocol: Protocol, port: u16, ca: Option<PathBuf>) -> String {
    let url = match protocol {
        Protocol::Postgres => {
            format!("postgres://worker:{PASSWORD}@localhost:{port}/x?sslmode=require")
        }
        Protocol::Amqp => format!("amqps://worker:{PASSWORD}@localhost:{port}/x"),
        Protocol::Smtps | Protocol::Smtp | Protocol::InjectedSmtp => {
            unreachable!("mail has tests of its own")
        }
    };
    let endpoint = Endpoint::new(url.into(), ca, false);
    match protocol {
        Protocol::Postgres => chain(
            &store::connect(endpoint)
                .await
                .err()
                .expect("the peer is not Postgres"),
        ),
        Protocol::Amqp | Protocol::Smtps | Protocol::Smtp | Protocol::InjectedSmtp => chain(
            &Publisher::connect(endpoint)
                .await
                .err()
                .expect("the peer is not RabbitMQ"),
        ),
    }
}

#[tokio::test]
async fn no_password_is_sent_to_a_server_that_cannot_be_verified_and_the_error_states_why() {
    // Installs the TLS crypto provider.
    run().await;
    let folder = std::env::temp_dir().join(format!("links-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    let (own, other) = (Authority::new(), Authority::new());
    let ca = own.file(&folder);
    let right = own.issue(&["localhost"], GOOD);
    for protocol in [Protocol::Postgres, Protocol::Amqp] {
        let plaintext = if protocol == Protocol::Postgres {
            "does not support TLS"
        } else {
            "InvalidContentType"
        };
        for (what, identity, ca, said) in [
            ("plaintext", None, Some(&ca), plaintext),
            (
                "signed by another authority",
                Some(other.issue(&["localhost"], GOOD)),
                Some(&ca),
                "UnknownIssuer",
            ),
            (
                "signed by an authority that the system does not trust",
                Some(right.clone()),
                None,
                "UnknownIssuer",
            ),
            (
                "with another name",
                Some(own.issue(&["other.example"], GOOD)),
                Some(&ca),
                "not valid for name \"localhost\"",
            ),
            (
                "expired",
                Some(own.issue(&["localhost"], OVER)),
                Some(&ca),
                "certificate expired",
            ),
        ] {
            let peer = Peer::new(protocol, identity).await;
            let (port, ca) = (peer.port, ca.cloned());
            let (seen, error) = tokio::join!(peer.serve(), connect(protocol, port, ca));
            assert!(error.contains(said), "{protocol:?}, {what}: {error}");
            match seen {
                Seen::Plaintext(bytes) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    assert!(
                        !text.contains(PASSWORD) && !text.contains("worker"),
                        "{protocol:?}: {text}"
                    );
                }
                seen => assert_eq!(seen, Seen::Refused, "{protocol:?}, {what}"),
            }
        }
        let peer = Peer::new(protocol, Some(right.clone())).await;
        let port = peer.port;
        // The peer closes the connection once it is trusted.
        let (seen, _) = tokio::join!(peer.serve(), connect(protocol, port, Some(ca.clone())));
        assert_eq!(
            seen,
            Seen::Trusted,
            "{protocol:?}: a valid certificate is refused"
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_worker_runs_over_tls_with_real_servers() {
    let world = TestWorld::with_own_servers().await;
    let authority = Authority::new();
    let identity = authority.issue(&["localhost", "127.0.0.1"], GOOD);
    let ca = authority.file(world.folder()).display().to_string();
    encrypt_postgres(&world, &identity).await;
    let port = encrypt_rabbitmq(&world, &identity).await;

    let mut amqp = Url::parse(world.amqp_url.expose_secret()).unwrap();
    amqp.set_scheme("amqps").unwrap();
    amqp.set_port(Some(port)).unwrap();
    let environment = BTreeMap::from([
        (
            "DISPATCH_DATABASE_URL",
            format!(
                "{}?sslmode=verify-full",
                world.database.worker_url.expose_secret()
            ),
        ),
        ("DISPATCH_AMQP_URL", amqp.to_string()),
        ("DISPATCH_DATABASE_CA", ca.clone()),
        ("DISPATCH_AMQP_CA", ca),
    ]);
    let environment = environment
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    worker.ready().await;
    let encrypted = world
        .database
        .one("SELECT count(*) FROM pg_stat_ssl WHERE ssl")
        .await;
    assert!(
        encrypted.parse::<u32>().unwrap() >= 2,
        "the connections of the heartbeat and of the pool: {encrypted}"
    );
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    Checks::default().hold(&world).await;
}

/// Installs the certificate in the private Postgres, through SQL, as the key file must belong to
/// the server's user.
async fn encrypt_postgres(world: &TestWorld, identity: &Identity) {
    for (file, pem) in [
        ("server.crt", &identity.certificate),
        ("server.key", &identity.key),
    ] {
        let lines: Vec<String> = pem
            .trim()
            .lines()
            .map(|line| format!("'{}'", line.trim()))
            .collect();
        let lines = lines.join(",");
        world
            .database
            .rows(&format!(
                "COPY (SELECT unnest(ARRAY[{lines}])) TO PROGRAM 'umask 077; cat > {file}'"
            ))
            .await;
    }
    world.database.rows("ALTER SYSTEM SET ssl = on").await;
    world.database.rows("SELECT pg_reload_conf()").await;
}

/// Adds a TLS listener to the private RabbitMQ and restarts it; returns the listener's port.
async fn encrypt_rabbitmq(world: &TestWorld, identity: &Identity) -> u16 {
    let port = ports::reserve().expect("a free port");
    let number = port.number();
    let folder = world.servers_folder().join("rabbitmq");
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (
        file("tls.crt", &identity.certificate),
        file("tls.key", &identity.key),
    );
    let configuration = folder.join("rabbitmq.conf");
    let text = std::fs::read_to_string(&configuration).unwrap();
    let more = format!(
        "listeners.ssl.loopback = 127.0.0.1:{number}\nssl_options.cacertfile = {certificate}\nssl_options.certfile = {certificate}\n\
         ssl_options.keyfile = {key}\nssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n"
    );
    std::fs::write(&configuration, text + &more).unwrap();
    drop(port);
    world.server_command(ServerCommand::RestartRabbitmq).await;
    number
}

/// Runs the program with two URLs and optionally the setting that allows plaintext.
async fn dispatch(arguments: &[&str], database: &str, amqp: &str, allow: bool) -> Output {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .env_clear()
        .env("DISPATCH_DATABASE_URL", database)
        .env("DISPATCH_AMQP_URL", amqp);
    command.env(
        "DISPATCH_KEYRING",
        dispatch_worker::secrets::Keyring::fresh_setting().expose_secret(),
    );
    command.env("DISPATCH_OPS_LISTEN", "127.0.0.1:0");
    if allow {
        command.env("DISPATCH_ALLOW_PLAINTEXT_LINKS", "true");
    }
    let output = tokio::time::timeout(SOON, command.kill_on_drop(true).output()).await;
    output
        .expect("the program ends by itself")
        .expect("the program runs")
}

#[tokio::test]
async fn plaintext_and_default_passwords_do_not_leave_this_machine() {
    let local = "postgres://worker:own@127.0.0.1:1/x";
    let right = "amqps://worker:own@mq.invalid/";
    let database = |url: &'static str, part: &'static str| (["jobs", "list"], url, right, part);
    let broker = |url: &'static str, part: &'static str| (["topology", "check"], local, url, part);
    for (arguments, database, amqp, part) in [
        database(
            "postgres://worker:own@db.invalid/x?sslmode=disable",
            "use sslmode=require",
        ),
        database(
            "postgres://worker:own@db.invalid/x?sslmode=prefer",
            "use sslmode=require",
        ),
        database(
            "host=localhost hostaddr=192.0.2.7 user=worker password=own sslmode=disable",
            "192.0.2.7",
        ),
        database(
            "postgres://worker:own@127.0.0.1,db.invalid/x?sslmode=disable",
            "db.invalid",
        ),
        database(
            "postgres://postgres:postgres@db.invalid/x",
            "default user or password",
        ),
        broker("amqp://worker:own@mq.invalid/", "use amqps://"),
        broker(
            "amqps://guest:guest@mq.invalid/",
            "default user or password",
        ),
        broker("amqps://mq.invalid/", "default user or password"),
    ] {
        let output = dispatch(&arguments, database, amqp, false).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && said.contains(part),
            "{arguments:?} {database} {amqp}: {said}"
        );
        // A worker does not start.
        let output = dispatch(&["worker"], database, amqp, false).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(2) && said.contains(part),
            "{database} {amqp}: {said}"
        );
    }
}

#[tokio::test]
async fn the_plaintext_setting_allows_plaintext_and_warns() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // The rules treat this address as another machine, although nothing listens there.
    let url = format!(
        "postgres://worker:own@0.0.0.0:{}/x?sslmode=disable",
        listener.local_addr().unwrap().port()
    );
    drop(listener);
    let output = dispatch(&["jobs", "list"], &url, "amqp://localhost", true).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("PLAINTEXT") && said.contains("DISPATCH_ALLOW_PLAINTEXT_LINKS"),
        "{said}"
    );
    assert_eq!(
        output.status.code(),
        Some(1),
        "nothing listens there: {said}"
    );
    let defaults = dispatch(
        &["jobs", "list"],
        &url.replace(":own@", ":password@"),
        "amqp://localhost",
        true,
    )
    .await;
    assert_eq!(
        defaults.status.code(),
        Some(2),
        "default passwords are still refused"
    );
}

#[tokio::test]
async fn a_ca_file_turns_tls_on_and_must_hold_a_certificate() {
    let folder = std::env::temp_dir().join(format!("links-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    let peer = Peer::new(Protocol::Postgres, None).await;
    let url = SecretString::from(format!(
        "postgres://worker:{PASSWORD}@127.0.0.1:{}/x",
        peer.port
    ));
    let endpoint = Endpoint::new(url.clone(), Some(Authority::new().file(&folder)), false);
    let (seen, error) = tokio::join!(peer.serve(), store::connect(endpoint));
    assert_eq!(
        seen,
        Seen::Plaintext(Vec::new()),
        "nothing is sent to a server without TLS"
    );
    let error = chain(&error.err().expect("the peer is not Postgres"));
    assert!(error.contains("does not support TLS"), "{error}");
    let empty = folder.join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let error = chain(
        &store::pool(Endpoint::new(url, Some(empty), false), 1).expect_err("no authority, no pool"),
    );
    assert!(
        error.contains("DISPATCH_DATABASE_CA") && error.contains("holds no certificate"),
        "{error}"
    );
    std::fs::remove_dir_all(folder).unwrap();
}
