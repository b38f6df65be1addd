//! Settings: flags and environment variables, one table. Only this module reads the environment.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use secrecy::SecretString;

use crate::link::Endpoint;

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
        Ok(Endpoint::new(url, self.database_ca.clone(), self.allow_plaintext_links))
    }

    /// The RabbitMQ URL, with what is to be trusted there.
    ///
    /// # Errors
    /// [`Unset`] says what would be right.
    pub fn amqp_url(&self) -> Result<Endpoint, Unset> {
        let url = self.amqp_url.clone().ok_or(Unset("DISPATCH_AMQP_URL", "amqps://user:password@host:port/vhost"))?;
        Ok(Endpoint::new(url, self.amqp_ca.clone(), self.allow_plaintext_links))
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

/// Servers that tests use instead of starting private ones: Postgres and RabbitMQ URLs.
#[must_use]
pub fn test_servers() -> Option<(String, String)> {
    let read = |name: &str| std::env::var_os(name).and_then(|value| value.into_string().ok());
    Some((read("DISPATCH_TEST_DATABASE_URL")?, read("DISPATCH_TEST_AMQP_URL")?))
}

/// How many cases a property test with real servers runs, where somebody wants more than its default.
#[must_use]
pub fn test_cases() -> Option<u32> {
    number("DISPATCH_TEST_CASES")
}

/// How many times as large as usual the tables are whose statements are looked at, where somebody wants them larger.
#[must_use]
pub fn test_scale() -> Option<u32> {
    number("DISPATCH_TEST_SCALE")
}

/// The one case that a property test with real servers runs again.
#[must_use]
pub fn test_seed() -> Option<u64> {
    number("DISPATCH_TEST_SEED")
}

fn number<N: std::str::FromStr>(name: &str) -> Option<N> {
    std::env::var_os(name)?.into_string().ok()?.parse().ok()
}

/// Settings that no command has a flag for, with what they mean.
pub const WITHOUT_FLAG: [(&str, &str); 1] =
    [("DISPATCH_USER", "Who runs a command, for the audit log; otherwise the user of the shell")];
/// What only tests read.
const OF_TESTS: [&str; 5] =
    ["DISPATCH_TEST_DATABASE_URL", "DISPATCH_TEST_AMQP_URL", "DISPATCH_TEST_CASES", "DISPATCH_TEST_SEED", "DISPATCH_TEST_SCALE"];
const PREFIX: &str = "DISPATCH_";

/// Variables of the environment that look like settings and are none.
#[derive(Debug, thiserror::Error)]
#[error("{}; right are those that `dispatch settings` lists", .0.join(", "))]
pub struct UnknownSettings(Vec<String>);

/// Whether every variable of the environment that looks like a setting is one: a misspelt one would be overlooked. `known` are
/// the names of the command line.
///
/// # Errors
/// [`UnknownSettings`] names each, and the setting that it is most like.
pub fn check_environment(known: &[String]) -> Result<(), UnknownSettings> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let unknown = unknown_settings(names, known);
    if unknown.is_empty() { Ok(()) } else { Err(UnknownSettings(unknown)) }
}

fn unknown_settings(names: impl Iterator<Item = String>, known: &[String]) -> Vec<String> {
    let is_known = |name: &str| {
        let flagless = WITHOUT_FLAG.iter().any(|(known, _)| *known == name);
        flagless || OF_TESTS.contains(&name) || known.iter().any(|known| known == name)
    };
    let is_unknown = |name: &String| name.starts_with(PREFIX) && !is_known(name) && !is_service_link(name);
    let mut unknown: Vec<String> = names.filter(is_unknown).collect();
    unknown.sort_unstable();
    let told = |name: &String| match nearest(name, known) {
        Some(near) => format!("{name} is no setting (did you mean {near}?)"),
        None => format!("{name} is no setting"),
    };
    unknown.iter().map(told).collect()
}

/// Where a service is called `dispatch-…`, Kubernetes gives every container of the namespace `DISPATCH_…_SERVICE_HOST`,
/// `…_SERVICE_PORT[_NAME]`, `…_PORT`, `…_PORT_5432_TCP[_ADDR]` and the like
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn is_service_link(name: &str) -> bool {
    let is_number = |rest: &str| rest.strip_prefix('_').is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()));
    let mut after_port = name.match_indices("_PORT").map(|(at, port)| &name[at + port.len()..]);
    let is_port = after_port.any(|rest| rest.is_empty() || is_number(rest));
    is_port || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT_")
}

/// The name that `name` is most like, where it is like any: two letters in three are the same.
fn nearest<'n>(name: &str, known: &'n [String]) -> Option<&'n str> {
    let tail = |name: &'_ str| name.strip_prefix(PREFIX).unwrap_or(name).to_owned();
    let wanted = tail(name);
    let near = known.iter().map(|known| (distance(&wanted, &tail(known)), known)).min()?;
    (near.0 * 3 <= wanted.chars().count()).then_some(near.1)
}

/// How many letters must be put in, left out or changed to make `b` of `a` (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The user who runs a command, for the audit log.
#[must_use]
pub fn user() -> String {
    let name = ["DISPATCH_USER", "SUDO_USER", "USER", "LOGNAME"].iter().find_map(std::env::var_os);
    name.and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unknown".to_owned())
}

/// Whether colours are unwanted (<https://no-color.org>).
#[must_use]
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(names: &[&str]) -> Vec<String> {
        let known = ["DISPATCH_CONCURRENCY", "DISPATCH_DATABASE_URL", "DISPATCH_DATABASE_CA"].map(str::to_owned);
        unknown_settings(names.iter().map(|&name| name.to_owned()), &known)
    }

    #[test]
    fn a_setting_that_there_is_not_is_told_with_the_one_that_it_is_like() {
        for (name, near) in [
            ("DISPATCH_CONCURENCY", "did you mean DISPATCH_CONCURRENCY?"),
            ("DISPATCH_CONCURRENCY_", "did you mean DISPATCH_CONCURRENCY?"),
            ("DISPATCH_DATABSE_URI", "did you mean DISPATCH_DATABASE_URL?"),
            ("DISPATCH_DATABASE_CAS", "did you mean DISPATCH_DATABASE_CA?"),
        ] {
            let told = unknown(&[name]);
            assert!(told.len() == 1 && told[0].starts_with(name) && told[0].contains(near), "{told:?}");
        }
        assert_eq!(unknown(&["DISPATCH_", "DISPATCH_COLOUR"]), ["DISPATCH_ is no setting", "DISPATCH_COLOUR is no setting"]);
    }

    #[test]
    fn what_is_a_setting_or_none_of_ours_is_let_be() {
        let service = ["HOST", "PORT", "PORT_AMQP"].map(|what| format!("DISPATCH_RABBITMQ_SERVICE_{what}"));
        let port = ["", "_5672_TCP", "_5672_TCP_ADDR", "_5672_TCP_PROTO"].map(|what| format!("DISPATCH_PORT{what}"));
        let others = ["DISPATCH_CONCURRENCY", "DISPATCH_USER", "DISPATCH_TEST_SEED", "DISPATCHER", "PATH"];
        let names: Vec<&str> = others.into_iter().chain(service.iter().chain(&port).map(String::as_str)).collect();
        assert_eq!(unknown(&names), Vec::<String>::new());
    }
}
