//! Settings: flags and environment variables, one table. Only this module reads the environment.

mod environment;
mod quotas;
mod secret_files;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use secrecy::SecretString;

use crate::secrets::seals_with_published_key;
use crate::tls_policy::{Endpoint, Published};

pub use environment::{
    UnknownSettings, WITHOUT_FLAG, check_environment, no_color, test_cases, test_scale, test_seed, test_servers, user,
};
pub use quotas::QuotaSettings;
pub use secret_files::{SecretFileFault, secret_file_setting, with_secret_files};

/// Where Postgres and RabbitMQ are, and the keyring.
#[derive(Debug, Clone, Args)]
pub struct Links {
    /// Postgres: postgres://user:password@host:port/database; verified TLS unless it is on this machine. Several servers: host:port,host:port and ?target_session_attrs=read-write
    #[arg(long, env = "DISPATCH_DATABASE_URL", hide_env_values = true, value_parser = secret, value_name = "URL")]
    pub database_url: Option<SecretString>,
    /// RabbitMQ: amqps://user:password@host:port/vhost; amqp:// on this machine. A cluster: host:port,host:port, tried in turn, from a random one
    #[arg(long, env = "DISPATCH_AMQP_URL", hide_env_values = true, value_parser = secret, value_name = "URL")]
    pub amqp_url: Option<SecretString>,
    /// PEM file with the only authorities trusted to vouch for Postgres; otherwise the system's. Set, TLS is used on this machine too
    #[arg(long, env = "DISPATCH_DATABASE_CA", value_name = "FILE")]
    pub database_ca: Option<PathBuf>,
    /// PEM file with the only authorities trusted to vouch for RabbitMQ; otherwise the system's
    #[arg(long, env = "DISPATCH_AMQP_CA", value_name = "FILE")]
    pub amqp_ca: Option<PathBuf>,
    /// Let Postgres and RabbitMQ on other machines be spoken to in plaintext, where the URL asks for it: a network of your own only
    #[arg(long, env = "DISPATCH_ALLOW_PLAINTEXT_LINKS", action = clap::ArgAction::SetTrue)]
    pub allow_plaintext_links: bool,
    /// Development on one machine only: servers under names without a dot, as those of docker-compose.yml, may be used with its password and key, which everybody knows
    #[arg(long, env = "DISPATCH_DEVELOPMENT", action = clap::ArgAction::SetTrue)]
    pub development: bool,
    /// Keys for tokens at rest: id:base64key[,id:base64key…]; the first one seals, all open
    #[arg(long, env = "DISPATCH_KEYRING", hide_env_values = true, value_parser = secret, value_name = "KEYS")]
    pub keyring: Option<SecretString>,
}

/// A setting that is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not set; right is {1}")]
pub struct Unset(&'static str, &'static str);

/// A setting that cannot be used; the text says what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotRight(pub &'static str);

impl Links {
    /// The Postgres URL, with what is to be trusted there.
    ///
    /// # Errors
    /// [`Unset`] says what would be right.
    pub fn database_url(&self) -> Result<Endpoint, Unset> {
        let unset = Unset("DISPATCH_DATABASE_URL", "postgres://user:password@host:port/database");
        let url = self.database_url.clone().ok_or(unset)?;
        Ok(self.endpoint(url, self.database_ca.clone()))
    }

    /// The RabbitMQ URL, with what is to be trusted there.
    ///
    /// # Errors
    /// [`Unset`] says what would be right.
    pub fn amqp_url(&self) -> Result<Endpoint, Unset> {
        let url = self.amqp_url.clone().ok_or(Unset("DISPATCH_AMQP_URL", "amqps://user:password@host:port/vhost"))?;
        Ok(self.endpoint(url, self.amqp_ca.clone()))
    }

    fn endpoint(&self, url: SecretString, ca: Option<PathBuf>) -> Endpoint {
        let published = Published { development: self.development, key: self.seals_with_published_key() };
        Endpoint::new(url, ca, self.allow_plaintext_links).with_published(published)
    }

    /// Whether what the keyring seals can be opened by everybody.
    #[must_use]
    pub fn seals_with_published_key(&self) -> bool {
        self.keyring.as_ref().is_some_and(seals_with_published_key)
    }

    /// The keyring.
    ///
    /// # Errors
    /// [`Unset`] says what would be right.
    pub fn keyring(&self) -> Result<&SecretString, Unset> {
        self.keyring
            .as_ref()
            .ok_or(Unset("DISPATCH_KEYRING", "k1:<32 bytes in base64>, for example from `openssl rand -base64 32`"))
    }
}

/// Settings of a migration.
#[derive(Debug, Clone, Args)]
pub struct MigrateSettings {
    /// Login to make for workers, or to give another password: user:password; Postgres gets a verifier of the password only
    #[arg(long, env = "DISPATCH_WORKER_LOGIN", hide_env_values = true, value_parser = secret, value_name = "LOGIN")]
    pub worker_login: Option<SecretString>,
}

/// Settings of a worker.
#[derive(Debug, Clone, Args)]
pub struct WorkerSettings {
    /// Operations server (health, metrics)
    #[arg(long, env = "DISPATCH_OPS_LISTEN", default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    pub ops_listen: SocketAddr,
    /// Further names that the operations server may be asked by (Host, without port), separated by commas: of a proxy in front of it
    #[arg(long, env = "DISPATCH_OPS_HOSTS", value_delimiter = ',', value_parser = host_name, value_name = "NAMES")]
    pub ops_hosts: Vec<String>,
    /// Jobs run at a time in the lane `dispatch`
    #[arg(long, env = "DISPATCH_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub concurrency: u16,
    /// Jobs run at a time in the lane `assignee_sync`
    #[arg(long, env = "DISPATCH_ASSIGNEE_SYNC_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub assignee_sync_concurrency: u16,
    /// Jobs run at a time in the lane `messaging`
    #[arg(long, env = "DISPATCH_MESSAGING_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub messaging_concurrency: u16,
    /// Jobs that may wait in Postgres for their turn, and open dead letters; with more of either, new ones stay in RabbitMQ
    #[arg(long, env = "DISPATCH_BACKLOG_LIMIT", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub backlog_limit: u32,
    /// One tenant: believe every message, whoever publishes it and whatever it names. Otherwise producers are registered
    #[arg(long, env = "DISPATCH_TRUST_PRODUCERS", action = clap::ArgAction::SetTrue)]
    pub trust_producers: bool,
    /// Bytes of memory that messages may take until they are rows, counted with four for each byte of a body; with more, the next ones stay in RabbitMQ
    #[arg(long, env = "DISPATCH_INTAKE_BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u32).range(8 << 20..=2 << 30))]
    pub intake_bytes: u32,
    /// How much of Postgres a producer and an organization may use.
    #[command(flatten)]
    pub quotas: QuotaSettings,
    /// Postgres connections of the pool; a worker opens up to nine more, for eight writers and a heartbeat
    #[arg(long, env = "DISPATCH_POOL_SIZE", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub pool_size: u16,
    /// Seconds that a drain waits for stages in hand
    #[arg(long, env = "DISPATCH_DRAIN_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub drain_seconds: u64,
    /// Hours after which an outcome event or a reply that could not be published is dropped
    #[arg(long, env = "DISPATCH_EVENT_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=720))]
    pub event_hours: u64,
    /// How long what is over is kept.
    #[command(flatten)]
    pub keep: KeepSettings,
    /// The providers.
    #[command(flatten)]
    pub providers: ProviderLinks,
    /// Tests only: abort at `stage:point[:n]`, the n-th time that point is reached
    #[cfg(feature = "devkit")]
    #[arg(long, env = "DISPATCH_CRASH_AT", value_name = "STAGE:POINT", hide = true)]
    pub crash_at: Option<String>,
}

/// How long what is over is kept, in days.
#[derive(Debug, Clone, Copy, Args)]
pub struct KeepSettings {
    /// Days that jobs are kept after their end, with their keys; also resolved dead letters, holds, events of service hooks
    #[arg(long, env = "DISPATCH_KEEP_JOBS_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub keep_jobs_days: u16,
    /// Days after which parked jobs, and jobs that wait without a deadline, are cancelled, and open dead letters discarded
    #[arg(long, env = "DISPATCH_KEEP_PARKED_DAYS", default_value_t = 180, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub keep_parked_days: u16,
    /// Days that the audit log is kept
    #[arg(long, env = "DISPATCH_KEEP_AUDIT_DAYS", default_value_t = 730, value_parser = clap::value_parser!(u16).range(365..=36500))]
    pub keep_audit_days: u16,
    /// Days that groups' history and activities are kept
    #[arg(long, env = "DISPATCH_KEEP_HISTORY_DAYS", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=36500))]
    pub keep_history_days: u16,
    /// Days that the rows of workers that have ended are kept
    #[arg(long, env = "DISPATCH_KEEP_REPLICAS_DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub keep_replicas_days: u16,
}

/// Where the providers are and how they are called.
#[derive(Debug, Clone, Args)]
pub struct ProviderLinks {
    /// Deadline of one call to a provider, in seconds
    #[arg(long, env = "DISPATCH_CALL_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub call_seconds: u64,
    /// Azure DevOps: profile and accounts
    #[arg(
        long,
        env = "DISPATCH_AZURE_DEVOPS_PROFILE_URL",
        default_value = "https://app.vssps.visualstudio.com",
        value_name = "URL"
    )]
    pub azure_devops_profile_url: String,
    /// Azure DevOps: graph
    #[arg(long, env = "DISPATCH_AZURE_DEVOPS_GRAPH_URL", default_value = "https://vssps.dev.azure.com", value_name = "URL")]
    pub azure_devops_graph_url: String,
    /// Azure DevOps: search
    #[arg(long, env = "DISPATCH_AZURE_DEVOPS_SEARCH_URL", default_value = "https://almsearch.dev.azure.com", value_name = "URL")]
    pub azure_devops_search_url: String,
    /// Azure DevOps: everything else
    #[arg(long, env = "DISPATCH_AZURE_DEVOPS_URL", default_value = "https://dev.azure.com", value_name = "URL")]
    pub azure_devops_url: String,
    /// Microsoft Entra's token endpoint, where identities' tokens are refreshed
    #[arg(
        long,
        env = "DISPATCH_ENTRA_TOKEN_URL",
        default_value = "https://login.microsoftonline.com/organizations/oauth2/v2.0/token",
        value_name = "URL"
    )]
    pub entra_token_url: String,
    /// Client (application) id that identities' tokens were issued to; without it no token is refreshed
    #[arg(long, env = "DISPATCH_ENTRA_CLIENT_ID", value_name = "ID")]
    pub entra_client_id: Option<String>,
    /// That client's secret
    #[arg(long, env = "DISPATCH_ENTRA_CLIENT_SECRET", hide_env_values = true, value_parser = secret, value_name = "SECRET")]
    pub entra_client_secret: Option<SecretString>,
    /// Discord's API
    #[arg(long, env = "DISPATCH_DISCORD_URL", default_value = "https://discord.com/api/v10", value_name = "URL")]
    pub discord_url: String,
    /// Slack's Web API
    #[arg(long, env = "DISPATCH_SLACK_URL", default_value = "https://slack.com/api", value_name = "URL")]
    pub slack_url: String,
    /// Mail server: smtps://user:password@host:port, or smtp://user:password@host:port?tls=required; without it, no mail goes out
    #[arg(long, env = "DISPATCH_SMTP_URL", hide_env_values = true, value_parser = secret, value_name = "URL")]
    pub smtp_url: Option<SecretString>,
    /// Calls that one destination takes from one worker: provider=calls/seconds, separated by commas; what is not named keeps its default
    #[arg(
        long,
        env = "DISPATCH_RATES",
        default_value = "azure_devops=200/1,discord=5/5,discord_webhook=5/10,discord_interaction=50/1,\
            slack=3/3,teams=4/1,email=10/1,webhook=50/1",
        value_name = "RATES"
    )]
    pub rates: String,
    /// Development only: let providers be plain http, and mail plain smtp, on loopback
    #[arg(long, env = "DISPATCH_ALLOW_HTTP_LOOPBACK", action = clap::ArgAction::SetTrue)]
    pub allow_http_loopback: bool,
}

impl WorkerSettings {
    /// Longest wait of a drain.
    #[must_use]
    pub const fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// Age at which outcome events and replies are dropped.
    #[must_use]
    pub const fn longest_event(&self) -> Duration {
        Duration::from_secs(self.event_hours * 3600)
    }

    /// How many jobs of a lane run at a time.
    #[must_use]
    pub fn concurrency_of(&self, lane: &str) -> usize {
        usize::from(match lane {
            "assignee_sync" => self.assignee_sync_concurrency,
            "messaging" => self.messaging_concurrency,
            _ => self.concurrency,
        })
    }
}

/// How logs are written.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// Which events are logged, in tracing's filter syntax; the worker itself tells what becomes of its links
    #[arg(long, env = "DISPATCH_LOG", default_value = "info,lapin=off,refinery_core=warn", global = true, value_name = "FILTER")]
    pub log: String,
    /// `text` for people or `json` for machines
    #[arg(long, env = "DISPATCH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// See [`LogSettings::log_format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text.to_owned()))
}

fn host_name(text: &str) -> Result<String, &'static str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = (1..=253).contains(&text.len()) && text.chars().all(is_plain);
    if is_name || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    Err("expected names or addresses without scheme, port and brackets; use ops.example,10.0.0.7")
}
