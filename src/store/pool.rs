//! Connections to Postgres, with TLS if they leave this machine or the settings require it.

use std::time::Duration;

use deadpool_postgres::{
    Connect, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::addresses;
use super::connect::{CONNECT_TIMEOUT, Connected, Servers};
use super::error::StoreError;
use crate::tls_policy::{self, Encryption, Endpoint, POSTGRES, Peer, Requested};

/// Postgres ends a pooled statement that exceeds its timeout before [`SILENCE`] has passed; a
/// statement that takes longer has lost its server. Every statement finds its rows through an
/// index: a plan made while a table is empty would otherwise read the whole table for the lifetime
/// of the connection. With sequential scans disabled, a plan without an index has so high a cost
/// that Postgres would compile it (`jit`), which takes longer than running it.
const LIMITS: &str = "-c statement_timeout=8000 -c idle_in_transaction_session_timeout=30000 -c lock_timeout=5000 \
    -c enable_seqscan=off -c jit=off";
/// What connections that only read have in addition: the last value of a setting counts.
const READING: &str = "-c statement_timeout=2000 -c default_transaction_read_only=on";
/// How long a pooled connection waits while Postgres owes an answer and sends nothing.
const SILENCE: Duration = Duration::from_secs(9);
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of groups of writes that are written at the same time; each needs a connection.
/// More of them would not justify their connections on any disk.
pub const WRITERS: usize = 8;

/// The writers look rows up by their keys only, so their plans are made once and use indexes. A
/// locked row delays its group for at most one second.
const WRITER_OPTIONS: &str = "-c plan_cache_mode=force_generic_plan -c enable_hashjoin=off -c enable_mergejoin=off -c lock_timeout=1000";

/// Creates a pool of at most `size` connections.
///
/// # Errors
/// [`StoreError::Url`] or [`StoreError::Link`] if the setting is wrong. Nothing is connected yet.
pub fn pool(endpoint: impl Into<Endpoint>, size: usize) -> Result<Pool, StoreError> {
    pool_with(&endpoint.into(), size, LIMITS)
}

/// Creates a pool of at most `size` connections that only read, whose statements end after 2 s.
///
/// # Errors
/// Same as [`pool`].
pub fn reading_pool(endpoint: impl Into<Endpoint>, size: usize) -> Result<Pool, StoreError> {
    pool_with(&endpoint.into(), size, &format!("{LIMITS} {READING}"))
}

/// Creates the pool of the group writer.
///
/// # Errors
/// Same as [`pool`].
pub fn writers_pool(endpoint: impl Into<Endpoint>) -> Result<Pool, StoreError> {
    pool_with(
        &endpoint.into(),
        WRITERS,
        &format!("{LIMITS} {WRITER_OPTIONS}"),
    )
}

fn pool_with(endpoint: &Endpoint, size: usize, options: &str) -> Result<Pool, StoreError> {
    let servers = parse(endpoint, Some(options))?;
    let addresses = servers.addresses();
    let connecting = CONNECT_TIMEOUT * u32::try_from(addresses.len() + 1).unwrap_or(u32::MAX);
    let manager = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_connect(servers.config().clone(), Pooled(servers), manager);
    let is_trusted =
        Hook::sync_fn(
            move |_, metrics| match addresses::is_suspect(&addresses, metrics.created) {
                true => Err(HookError::message(
                    "another connection of this age was closed because the server was silent",
                )),
                false => Ok(()),
            },
        );
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT_TIMEOUT))
        .create_timeout(Some(connecting))
        .pre_recycle(is_trusted)
        .build()
        .map_err(|error| StoreError::Url(error.to_string()))
}

/// Opens the connections of a pool.
struct Pooled(Servers);

impl Connect for Pooled {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        async {
            let (client, connection) = self.0.connect(Some(SILENCE)).await?;
            Ok((client, drive(connection)))
        }
        .boxed()
    }
}

/// **Invariant:** `store` spawns only the drivers of pooled connections; each ends with its
/// connection.
#[expect(
    clippy::disallowed_methods,
    reason = "the pool takes a task for each connection, and ends it"
)]
fn drive(connection: BoxFuture<'static, Result<(), Error>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(
                error = crate::fault::chain(&error),
                "a connection to Postgres ended; the pool replaces it"
            );
        }
    })
}

/// Opens one connection outside any pool, and returns it with the future that drives it. Its
/// statements have no timeout.
///
/// # Errors
/// [`StoreError`] if the connection cannot be opened.
pub async fn connect(endpoint: impl Into<Endpoint>) -> Result<Connected, StoreError> {
    Ok(parse(&endpoint.into(), None)?.connect(None).await?)
}

/// Runs `work` on a connection of its own, opened by [`connect`], and closes it.
///
/// # Errors
/// Errors of [`connect`] and of `work`; [`StoreError`] if the connection ends before `work` does.
pub async fn on_connection<T, E: From<StoreError>>(
    endpoint: impl Into<Endpoint>,
    work: impl AsyncFnOnce(&mut Client) -> Result<T, E>,
) -> Result<T, E> {
    let (mut client, connection) = connect(endpoint).await?;
    tokio::select! {
        done = work(&mut client) => done,
        ended = connection => Err(ended.map_or_else(StoreError::Database, |()| StoreError::Closed).into()),
    }
}

/// Opens a connection like [`connect`], which fails if Postgres owes an answer and sends nothing
/// for `silence`.
///
/// # Errors
/// Same as [`connect`].
pub async fn connect_watched(
    endpoint: impl Into<Endpoint>,
    silence: Duration,
) -> Result<Connected, StoreError> {
    Ok(parse(&endpoint.into(), None)?
        .connect(Some(silence))
        .await?)
}

fn parse(endpoint: &Endpoint, options: Option<&str>) -> Result<Servers, StoreError> {
    let text = endpoint.url();
    let mode = ssl_mode(text);
    // libpq's names for what is always done here: `require` verifies certificate and name.
    let text = match mode {
        Some(stricter @ ("verify-ca" | "verify-full")) => {
            &text.replacen(&format!("sslmode={stricter}"), "sslmode=require", 1)
        }
        _ => text,
    };
    // The parser's own message may quote the URL, so it is not passed on.
    let mut config: Config = text.parse().map_err(|_| not_right("it cannot be parsed"))?;
    if let Some(options) = options {
        config.options(options);
    }
    config.tcp_user_timeout(Duration::from_secs(10));
    config.keepalives_idle(Duration::from_secs(10));
    config.application_name("dispatch-worker");
    let requested = match mode {
        None => Requested::Unspecified,
        Some("disable" | "prefer") => Requested::Plaintext,
        Some(_) => Requested::Tls,
    };
    let hosts = hosts(&config);
    let (user, password) = (
        config.get_user().unwrap_or_default(),
        config.get_password().unwrap_or_default(),
    );
    let judge = |host: &String| {
        endpoint.judge(&Peer {
            service: &POSTGRES,
            host,
            user,
            password,
            requested,
        })
    };
    let judged = hosts.iter().map(judge).collect::<Result<Vec<_>, _>>()?;
    if judged.contains(&Encryption::Tls) {
        // The driver's default, `prefer`, falls back to plaintext silently.
        config.ssl_mode(SslMode::Require);
    } else if requested == Requested::Unspecified {
        // On this machine, a self-signed certificate of the server must not prevent the
        // connection.
        config.ssl_mode(SslMode::Disable);
    }
    let tls = match config.get_ssl_mode() {
        // Reading the system's certificate authorities takes time, and nothing would use them.
        SslMode::Disable => tls_policy::no_tls(),
        _ => endpoint.tls(&POSTGRES),
    };
    Servers::new(config, MakeRustlsConnect::new(tls?)).map_err(not_right)
}

fn not_right(what: &str) -> StoreError {
    StoreError::Url(format!(
        "{what}; use postgres://user:password@host:port/database, or host:port,host:port for several servers and \
         ?target_session_attrs=read-write"
    ))
}

/// Returns the hosts to connect to: addresses if they are given, otherwise names.
fn hosts(config: &Config) -> Vec<String> {
    if !config.get_hostaddrs().is_empty() {
        return config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    let name = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.to_string_lossy().into_owned(),
    };
    config.get_hosts().iter().map(name).collect()
}

/// Returns the value of `sslmode` in a URL or in key-value pairs.
fn ssl_mode(text: &str) -> Option<&str> {
    text.split(['?', '&', ' '])
        .find_map(|part| part.strip_prefix("sslmode="))
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn servers(url: &str) -> Result<Servers, StoreError> {
        parse(&SecretString::from(url).into(), None)
    }

    #[test]
    fn every_server_of_the_setting_has_its_address() {
        for (url, right) in [
            ("postgres://u:p@127.0.0.1/x", &["127.0.0.1:5432"][..]),
            (
                "postgres://u:p@127.0.0.1:1,localhost,[::1]:2/x",
                &["127.0.0.1:1", "localhost:5432", "[::1]:2"],
            ),
            (
                "host=localhost,127.0.0.1 port=7 user=u",
                &["localhost:7", "127.0.0.1:7"],
            ),
            (
                "host=one.test,two.test hostaddr=127.0.0.1,::1 port=7,8 user=u",
                &["127.0.0.1:7", "[::1]:8"],
            ),
            ("host=/run/postgresql user=u", &["/run/postgresql:5432"]),
        ] {
            assert_eq!(servers(url).unwrap().addresses(), right, "{url}");
        }
    }

    #[test]
    fn a_setting_that_does_not_fit_itself_is_reported_with_what_to_use_and_without_its_password() {
        for (url, part) in [
            ("user=u password=canary", "it names no host"),
            (
                "host=localhost,localhost hostaddr=127.0.0.1 password=canary",
                "differ in number; use one address for each name",
            ),
            (
                "host=localhost,localhost port=1,2,3 password=canary",
                "differ in number; use one port for all",
            ),
            (
                "postgres://u:canary@localhost:port/x",
                "it cannot be parsed",
            ),
            (
                "postgres://u:canary@localhost/x?target_session_attrs=fast",
                "it cannot be parsed",
            ),
        ] {
            let error = crate::fault::chain(
                &servers(url)
                    .err()
                    .unwrap_or_else(|| panic!("{url} is taken")),
            );
            assert!(
                error.contains(part)
                    && error.contains("use postgres://")
                    && !error.contains("canary"),
                "{url}: {error}"
            );
        }
    }
}
