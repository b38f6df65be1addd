//! Connections to Postgres, with TLS where they leave this machine or the settings ask for it.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::StoreError;
use crate::link::{self, Encryption, Endpoint, POSTGRES, Peer, Wish};

/// A pooled statement that takes longer than this has lost its server.
const LIMITS: &str = "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=30000 -c lock_timeout=10000";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const WAIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The writers look rows up by their keys only. A plan made while a table is empty would read the whole of it, for as long as the
/// connection lives: their plans are made once, and of index look-ups. A locked row delays its group for a second at most.
const WRITERS: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off \
    -c lock_timeout=1000";

/// A pool of at most `size` connections.
///
/// # Errors
/// [`StoreError::Url`] or [`StoreError::Link`] where the setting is not right; nothing is connected yet.
pub fn pool(endpoint: impl Into<Endpoint>, size: usize) -> Result<Pool, StoreError> {
    pool_with(&endpoint.into(), size, LIMITS)
}

/// The connections of the group writer.
///
/// # Errors
/// As [`pool`].
pub fn writers_pool(endpoint: impl Into<Endpoint>) -> Result<Pool, StoreError> {
    pool_with(&endpoint.into(), super::WRITERS, &format!("{LIMITS} {WRITERS}"))
}

fn pool_with(endpoint: &Endpoint, size: usize, options: &str) -> Result<Pool, StoreError> {
    let (mut config, tls) = parse(endpoint)?;
    config.options(options);
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(config, tls, ManagerConfig { recycling_method });
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(WAIT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT * 2))
        .build()
        .map_err(|error| StoreError::Url(error.to_string()))
}

/// One connection of its own, outside any pool, and the future that drives it.
///
/// # Errors
/// [`StoreError`] where it cannot be made.
pub async fn connect(
    endpoint: impl Into<Endpoint>,
) -> Result<(Client, BoxFuture<'static, Result<(), tokio_postgres::Error>>), StoreError> {
    let (config, tls) = parse(&endpoint.into())?;
    let (client, connection) = config.connect(tls).await?;
    Ok((client, connection.boxed()))
}

fn parse(endpoint: &Endpoint) -> Result<(Config, MakeRustlsConnect), StoreError> {
    let text = endpoint.url();
    let mode = ssl_mode(text);
    // libpq's words for what is always done here: `require` verifies certificate and name.
    let text = match mode {
        Some(stricter @ ("verify-ca" | "verify-full")) => &text.replacen(&format!("sslmode={stricter}"), "sslmode=require", 1),
        _ => text,
    };
    // The parser's own message may quote the URL, so it is not passed on.
    let mut config: Config =
        text.parse().map_err(|_| StoreError::Url("right is postgres://user:password@host:port/database".to_owned()))?;
    config.connect_timeout(CONNECT_TIMEOUT);
    config.tcp_user_timeout(Duration::from_secs(10));
    config.keepalives_idle(Duration::from_secs(10));
    config.application_name("dispatch-worker");
    let wish = match mode {
        None => Wish::Silent,
        Some("disable" | "prefer") => Wish::Plaintext,
        Some(_) => Wish::Tls,
    };
    let hosts = hosts(&config);
    if hosts.is_empty() {
        return Err(StoreError::Url("it names no host; right is postgres://user:password@host:port/database".to_owned()));
    }
    let (user, password) = (config.get_user().unwrap_or_default(), config.get_password().unwrap_or_default());
    let judge = |host: &String| endpoint.judge(&Peer { service: &POSTGRES, host, user, password, wish });
    let judged = hosts.iter().map(judge).collect::<Result<Vec<_>, _>>()?;
    if judged.contains(&Encryption::Tls) {
        // The driver's default, `prefer`, falls back to plaintext without a word.
        config.ssl_mode(SslMode::Require);
    } else if wish == Wish::Silent {
        // On this machine: a server's own certificate, which nobody has signed, is no obstacle.
        config.ssl_mode(SslMode::Disable);
    }
    let tls = match config.get_ssl_mode() {
        // Reading the system's authorities takes its time, and nobody would ask for them.
        SslMode::Disable => link::no_tls(),
        _ => endpoint.tls(&POSTGRES),
    };
    Ok((config, MakeRustlsConnect::new(tls?)))
}

/// What is connected to: addresses where they are given, else names.
fn hosts(config: &Config) -> Vec<String> {
    if !config.get_hostaddrs().is_empty() {
        return config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let name = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.to_string_lossy().into_owned(),
    };
    config.get_hosts().iter().map(name).collect()
}

/// The value of `sslmode`, in a URL or in key-value pairs.
fn ssl_mode(text: &str) -> Option<&str> {
    text.split(['?', '&', ' ']).find_map(|part| part.strip_prefix("sslmode="))
}
