//! Connections to Postgres, with TLS where the URL asks for it.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::StoreError;

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
/// [`StoreError::Url`] or [`StoreError::Tls`] where the setting is not right; nothing is connected yet.
pub fn pool(url: &SecretString, size: usize) -> Result<Pool, StoreError> {
    pool_with(url, size, LIMITS)
}

/// The connections of the group writer.
///
/// # Errors
/// As [`pool`].
pub fn writers_pool(url: &SecretString) -> Result<Pool, StoreError> {
    pool_with(url, super::WRITERS, &format!("{LIMITS} {WRITERS}"))
}

fn pool_with(url: &SecretString, size: usize, options: &str) -> Result<Pool, StoreError> {
    let mut config = parse(url)?;
    config.options(options);
    let recycling_method = RecyclingMethod::Fast;
    let manager = Manager::from_config(config, tls()?, ManagerConfig { recycling_method });
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
    url: &SecretString,
) -> Result<(Client, impl Future<Output = Result<(), tokio_postgres::Error>> + Send + use<>), StoreError> {
    Ok(parse(url)?.connect(tls()?).await?)
}

fn parse(url: &SecretString) -> Result<Config, StoreError> {
    // The parser's own message may quote the URL, so it is not passed on.
    let mut config: Config = url
        .expose_secret()
        .parse()
        .map_err(|_| StoreError::Url("right is postgres://user:password@host:port/database".to_owned()))?;
    if config.get_hosts().is_empty() {
        return Err(StoreError::Url("it names no host; right is postgres://user:password@host:port/database".to_owned()));
    }
    config.connect_timeout(CONNECT_TIMEOUT);
    config.tcp_user_timeout(Duration::from_secs(10));
    config.keepalives_idle(Duration::from_secs(10));
    config.application_name("dispatch-worker");
    let local = |host: &Host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        Host::Unix(_) => true,
    };
    if !config.get_hosts().iter().all(local) {
        match config.get_ssl_mode() {
            SslMode::Disable => tracing::warn!("plaintext to a Postgres that is not on this machine, as sslmode=disable says"),
            // The driver's default, `prefer`, falls back to plaintext without a word.
            _ => {
                config.ssl_mode(SslMode::Require);
            }
        }
    }
    Ok(config)
}

fn tls() -> Result<MakeRustlsConnect, StoreError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
