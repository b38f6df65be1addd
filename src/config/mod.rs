//! Settings: flags and environment variables in one table. Only this module reads the environment.

mod api_urls;
mod console;
mod environment;
#[cfg(feature = "otlp")]
mod otlp;
mod quotas;
mod secret_files;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use secrecy::SecretString;

use crate::providers::governor::default_rates;
use crate::providers::kind::ApiUrls;
use crate::secrets::seals_with_published_key;
use crate::tls_policy::{Endpoint, Published};

pub use api_urls::channel_kinds_help;
pub use console::{ConsoleSettings, PersonRole};
#[cfg(test)]
pub(crate) use environment::fuzz_inputs;
pub use environment::{
    UnknownSettings, WITHOUT_FLAG, check_environment, no_color, test_cases, test_scale, test_seed,
    test_servers, user,
};
#[cfg(feature = "otlp")]
pub use otlp::OtlpSettings;
pub use quotas::QuotaSettings;
pub use secret_files::{SecretFileFault, secret_file_setting, with_secret_files};

/// The connections to Postgres and RabbitMQ, and the keyring.
#[derive(Debug, Clone, Args)]
pub struct Links {
    /// Postgres: postgres://user:password@host:port/database, with verified TLS unless the server
    /// is on this machine. Several servers: host:port,host:port and
    /// ?target_session_attrs=read-write
    #[arg(long, env = "DISPATCH_DATABASE_URL", hide_env_values = true, value_parser = secret, value_name = "URL")]
    pub database_url: Option<SecretString>,
    /// RabbitMQ: amqps://user:password@host:port/vhost; amqp:// for a server on this machine.
    /// Cluster: host:port,host:port, tried in order from a random one
    #[arg(long, env = "DISPATCH_AMQP_URL", hide_env_values = true, value_parser = secret, value_name = "URL")]
    pub amqp_url: Option<SecretString>,
    /// PEM file with the certificate authorities trusted for Postgres, instead of the system's.
    /// Enables TLS on this machine too
    #[arg(long, env = "DISPATCH_DATABASE_CA", value_name = "FILE")]
    pub database_ca: Option<PathBuf>,
    /// PEM file with the certificate authorities trusted for RabbitMQ, instead of the system's
    #[arg(long, env = "DISPATCH_AMQP_CA", value_name = "FILE")]
    pub amqp_ca: Option<PathBuf>,
    /// Allow plaintext connections to Postgres, RabbitMQ and the OpenTelemetry collector on other
    /// machines if the URL requests them. Only for a private network
    #[arg(long, env = "DISPATCH_ALLOW_PLAINTEXT_LINKS", action = clap::ArgAction::SetTrue)]
    pub allow_plaintext_links: bool,
    /// Allow the published password and key of docker-compose.yml for servers with names without a
    /// dot. Only for development on one machine
    #[arg(long, env = "DISPATCH_DEVELOPMENT", action = clap::ArgAction::SetTrue)]
    pub development: bool,
    /// Keys for sealed values such as tokens: id:base64key[,id:base64key…], each of 32 bytes; the
    /// first key seals, every key unseals
    #[arg(long, env = "DISPATCH_KEYRING", hide_env_values = true, value_parser = secret, value_name = "KEYS")]
    pub keyring: Option<SecretString>,
}

/// A required setting that is not set.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not set; use {1}")]
pub struct Unset(&'static str, &'static str);

/// An invalid setting. The text states what to use instead.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotRight(pub &'static str);

impl Links {
    /// Returns the Postgres URL with the trusted certificate authorities.
    ///
    /// # Errors
    /// [`Unset`] if the setting is missing.
    pub fn database_url(&self) -> Result<Endpoint, Unset> {
        let unset = Unset(
            "DISPATCH_DATABASE_URL",
            "postgres://user:password@host:port/database",
        );
        let url = self.database_url.clone().ok_or(unset)?;
        Ok(self.endpoint(url, self.database_ca.clone()))
    }

    /// Returns the RabbitMQ URL with the trusted certificate authorities.
    ///
    /// # Errors
    /// [`Unset`] if the setting is missing.
    pub fn amqp_url(&self) -> Result<Endpoint, Unset> {
        let url = self.amqp_url.clone().ok_or(Unset(
            "DISPATCH_AMQP_URL",
            "amqps://user:password@host:port/vhost",
        ))?;
        Ok(self.endpoint(url, self.amqp_ca.clone()))
    }

    fn endpoint(&self, url: SecretString, ca: Option<PathBuf>) -> Endpoint {
        let published = Published {
            development: self.development,
            key: self.seals_with_published_key(),
        };
        Endpoint::new(url, ca, self.allow_plaintext_links).with_published(published)
    }

    /// Returns whether the keyring seals with a published key, so that anyone can unseal the
    /// values.
    #[must_use]
    pub fn seals_with_published_key(&self) -> bool {
        self.keyring.as_ref().is_some_and(seals_with_published_key)
    }

    /// Returns the keyring.
    ///
    /// # Errors
    /// [`Unset`] if the setting is missing.
    pub fn keyring(&self) -> Result<&SecretString, Unset> {
        self.keyring.as_ref().ok_or(Unset(
            "DISPATCH_KEYRING",
            "k1:<32 bytes in base64>, for example from `openssl rand -base64 32`",
        ))
    }
}

/// Settings of `dispatch migrate`.
#[derive(Debug, Clone, Args)]
pub struct MigrateSettings {
    /// Login to create for workers, or whose password to replace: user:password. Postgres receives
    /// only a verifier of the password
    #[arg(long, env = "DISPATCH_WORKER_LOGIN", hide_env_values = true, value_parser = secret, value_name = "LOGIN")]
    pub worker_login: Option<SecretString>,
}

/// Settings of a worker.
#[derive(Debug, Clone, Args)]
pub struct WorkerSettings {
    /// Address of the operations server (health, metrics); a loopback address
    #[arg(
        long,
        env = "DISPATCH_OPS_LISTEN",
        default_value = "127.0.0.1:9464",
        value_name = "ADDRESS"
    )]
    pub ops_listen: SocketAddr,
    /// Additional comma-separated host names (`Host` without the port) that the operations server
    /// accepts, for a proxy in front of it
    #[arg(long, env = "DISPATCH_OPS_HOSTS", value_delimiter = ',', value_parser = host_name, value_name = "NAMES")]
    pub ops_hosts: Vec<String>,
    /// Address of the console as people reach it, an https URL without path; a job that
    /// waits for an account is then announced with a link to a page
    #[arg(long, env = "DISPATCH_CONSOLE_URL", value_parser = console_url, value_name = "URL")]
    pub console_url: Option<String>,
    /// Concurrency limit of the lane `dispatch`, in jobs
    #[arg(long, env = "DISPATCH_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub concurrency: u16,
    /// Concurrency limit of the lane `assignee_sync`, in jobs
    #[arg(long, env = "DISPATCH_ASSIGNEE_SYNC_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub assignee_sync_concurrency: u16,
    /// Concurrency limit of the lane `messaging`, in jobs
    #[arg(long, env = "DISPATCH_MESSAGING_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub messaging_concurrency: u16,
    /// Limit of ready jobs in Postgres that are not yet woken, and of open dead letters; above
    /// either, new messages stay in RabbitMQ
    #[arg(long, env = "DISPATCH_BACKLOG_LIMIT", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub backlog_limit: u32,
    /// Accept every message from every RabbitMQ user, for an installation with one tenant.
    /// Otherwise producers must be registered
    #[arg(long, env = "DISPATCH_TRUST_PRODUCERS", action = clap::ArgAction::SetTrue)]
    pub trust_producers: bool,
    /// Memory limit in bytes for messages that are not yet rows, at four bytes per byte of a body;
    /// above it, messages stay in RabbitMQ
    #[arg(long, env = "DISPATCH_INTAKE_BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u32).range(8 << 20..=2 << 30))]
    pub intake_bytes: u32,
    /// Quotas.
    #[command(flatten)]
    pub quotas: QuotaSettings,
    /// Postgres connections in the pool; a worker opens up to nine more, for eight writers and a
    /// heartbeat
    #[arg(long, env = "DISPATCH_POOL_SIZE", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub pool_size: u16,
    /// Time limit in seconds of a drain, which waits for running stages
    #[arg(long, env = "DISPATCH_DRAIN_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub drain_seconds: u64,
    /// Hours after which an unpublished outcome event or reply is dropped
    #[arg(long, env = "DISPATCH_EVENT_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=720))]
    pub event_hours: u64,
    /// Retention.
    #[command(flatten)]
    pub keep: KeepSettings,
    /// Providers.
    #[command(flatten)]
    pub providers: ProviderLinks,
    /// The export of traces.
    #[cfg(feature = "otlp")]
    #[command(flatten)]
    pub otlp: OtlpSettings,
    /// Tests only: abort the n-th time that the crash point `stage:point[:n]` is reached
    #[cfg(feature = "devkit")]
    #[arg(
        long,
        env = "DISPATCH_CRASH_AT",
        value_name = "STAGE:POINT",
        hide = true
    )]
    pub crash_at: Option<String>,
}

/// Retention periods, in days.
#[derive(Debug, Clone, Copy, Args)]
pub struct KeepSettings {
    /// Retention in days of finished jobs with their keys, resolved dead letters, ended holds and
    /// service hook events
    #[arg(long, env = "DISPATCH_KEEP_JOBS_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub keep_jobs_days: u16,
    /// Days after which parked jobs and jobs that wait without a deadline are cancelled, and open
    /// dead letters are discarded
    #[arg(long, env = "DISPATCH_KEEP_PARKED_DAYS", default_value_t = 180, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub keep_parked_days: u16,
    /// Retention in days of the audit log
    #[arg(long, env = "DISPATCH_KEEP_AUDIT_DAYS", default_value_t = 730, value_parser = clap::value_parser!(u16).range(365..=36500))]
    pub keep_audit_days: u16,
    /// Retention in days of groups' history and activities
    #[arg(long, env = "DISPATCH_KEEP_HISTORY_DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=36500))]
    pub keep_history_days: u16,
    /// Retention in days of the rows of workers that have ended
    #[arg(long, env = "DISPATCH_KEEP_REPLICAS_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub keep_replicas_days: u16,
}

/// Addresses of the providers, and limits of calls to them.
#[derive(Debug, Clone, Args)]
pub struct ProviderLinks {
    /// Timeout in seconds of one call to a provider
    #[arg(long, env = "DISPATCH_CALL_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub call_seconds: u64,
    /// Azure DevOps: profile and accounts API
    #[arg(
        long,
        env = "DISPATCH_AZURE_DEVOPS_PROFILE_URL",
        default_value = "https://app.vssps.visualstudio.com",
        value_name = "URL"
    )]
    pub azure_devops_profile_url: String,
    /// Azure DevOps: Graph API
    #[arg(
        long,
        env = "DISPATCH_AZURE_DEVOPS_GRAPH_URL",
        default_value = "https://vssps.dev.azure.com",
        value_name = "URL"
    )]
    pub azure_devops_graph_url: String,
    /// Azure DevOps: search API
    #[arg(
        long,
        env = "DISPATCH_AZURE_DEVOPS_SEARCH_URL",
        default_value = "https://almsearch.dev.azure.com",
        value_name = "URL"
    )]
    pub azure_devops_search_url: String,
    /// Azure DevOps: all other APIs
    #[arg(
        long,
        env = "DISPATCH_AZURE_DEVOPS_URL",
        default_value = "https://dev.azure.com",
        value_name = "URL"
    )]
    pub azure_devops_url: String,
    /// Microsoft Entra: token endpoint, which refreshes identities' tokens
    #[arg(
        long,
        env = "DISPATCH_ENTRA_TOKEN_URL",
        default_value = "https://login.microsoftonline.com/organizations/oauth2/v2.0/token",
        value_name = "URL"
    )]
    pub entra_token_url: String,
    /// Microsoft Entra: client (application) id that the identities' tokens were issued to;
    /// without it, no token is refreshed
    #[arg(long, env = "DISPATCH_ENTRA_CLIENT_ID", value_name = "ID")]
    pub entra_client_id: Option<String>,
    /// Microsoft Entra: secret of the client
    #[arg(long, env = "DISPATCH_ENTRA_CLIENT_SECRET", hide_env_values = true, value_parser = secret, value_name = "SECRET")]
    pub entra_client_secret: Option<SecretString>,
    /// The addresses of the channels' APIs.
    #[command(flatten)]
    pub api_urls: ApiUrls,
    /// Mail server: smtps://user:password@host:port, or
    /// smtp://user:password@host:port?tls=required; without it, no mail is sent
    #[arg(long, env = "DISPATCH_SMTP_URL", hide_env_values = true, value_parser = secret, value_name = "URL")]
    pub smtp_url: Option<SecretString>,
    /// Rate limits of one worker for each destination, as comma-separated provider=calls/seconds;
    /// omitted providers keep their defaults
    #[arg(
        long,
        env = "DISPATCH_RATES",
        default_value = default_rates(),
        value_name = "RATES"
    )]
    pub rates: String,
    /// Allow plaintext HTTP to providers and plaintext SMTP on loopback. Only for development
    #[arg(long, env = "DISPATCH_ALLOW_HTTP_LOOPBACK", action = clap::ArgAction::SetTrue)]
    pub allow_http_loopback: bool,
}

impl WorkerSettings {
    /// Returns the time limit of a drain.
    #[must_use]
    pub const fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// Returns the age at which unpublished outcome events and replies are dropped.
    #[must_use]
    pub const fn longest_event(&self) -> Duration {
        Duration::from_secs(self.event_hours * 3600)
    }

    /// Returns the concurrency limit of a lane.
    #[must_use]
    pub fn concurrency_of(&self, lane: &str) -> usize {
        usize::from(match lane {
            "assignee_sync" => self.assignee_sync_concurrency,
            "messaging" => self.messaging_concurrency,
            _ => self.concurrency,
        })
    }
}

/// Settings of logs.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// Log filter in the syntax of tracing; the worker logs the state of its connections itself
    #[arg(
        long,
        env = "DISPATCH_LOG",
        default_value = "info,lapin=off,refinery_core=warn",
        global = true,
        value_name = "FILTER"
    )]
    pub log: String,
    /// Log format: `text` or `json`
    #[arg(long, env = "DISPATCH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// See [`LogSettings::log_format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per event.
    Json,
}

fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text.to_owned()))
}

/// Returns the address of a console without a path: https, or http on this machine.
fn console_url(text: &str) -> Result<String, &'static str> {
    let url = text.trim_end_matches('/');
    let is_of_authority = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let is_authority = |rest: &str| !rest.is_empty() && rest.chars().all(is_of_authority);
    let is_local = |rest: &str| {
        let names = ["localhost", "127.0.0.1", "[::1]"];
        let port = names.iter().find_map(|name| rest.strip_prefix(name));
        port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
    };
    let is_right = url.strip_prefix("https://").is_some_and(is_authority)
        || url
            .strip_prefix("http://")
            .is_some_and(|rest| is_authority(rest) && is_local(rest));
    if is_right {
        return Ok(url.to_owned());
    }
    Err(
        "expected an https URL without path, or http on this machine; use https://dispatch.example for example",
    )
}

fn host_name(text: &str) -> Result<String, &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = (1..=253).contains(&text.len()) && text.chars().all(is_plain);
    if is_name || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(
        "expected host names or addresses without scheme, port and brackets; use ops.example,10.0.0.7 for example",
    )
}
