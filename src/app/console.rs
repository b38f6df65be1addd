//! The process of the console: two small pools, a listener, and the end on a signal.

use std::sync::Arc;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;

use super::assembly::keyring;
use super::tasks::{Tasks, drain_on_signals};
use crate::config::{ConsoleSettings, Links, NotRight, PersonRole};
use crate::console::{self, Console, ConsoleParts, SigningProxy};
use crate::ops::{self, HostNames};
use crate::store::{self, Role, Store};

/// Connections that read, whose statements end after 2 s.
const READS: usize = 4;
/// Connections that act.
const ACTS: usize = 2;
/// The shortest secret that a proxy may share with the console.
const SECRET: usize = 32;

/// Runs the console until SIGTERM or SIGINT. It starts, and stays, also while Postgres is not
/// available.
///
/// # Errors
/// Invalid settings; an address that cannot be listened on.
pub async fn run_console(links: Links, settings: ConsoleSettings) -> anyhow::Result<()> {
    let is_safe = settings.console_listen.ip().is_loopback() || settings.console_behind_proxy;
    anyhow::ensure!(
        is_safe,
        NotRight(
            "expected a loopback address in DISPATCH_CONSOLE_LISTEN, or a proxy that ends TLS in front of the console; \
             use DISPATCH_CONSOLE_BEHIND_PROXY=true for the latter"
        )
    );
    let parts = ConsoleParts {
        reads: Store::new(store::reading_pool(links.database_url()?, READS)?),
        acts: Store::new(store::pool(links.database_url()?, ACTS)?),
        keyring: Arc::new(keyring(&links)?),
        hosts: HostNames::new(settings.console_listen, &settings.console_hosts),
        is_behind_proxy: settings.console_behind_proxy,
        proxy: signing_proxy(&settings)?,
    };
    let listener = TcpListener::bind(settings.console_listen)
        .await
        .with_context(|| format!("the console cannot listen on {}", settings.console_listen))?;
    let tasks = Tasks::new();
    let (drain, end) = (tasks.drain.clone(), tasks.end.clone());
    tasks.spawn("signals", drain_on_signals(drain.clone(), end));
    let console = Console::new(parts);
    let log = console::write_security_log(Arc::clone(&console), tasks.end.clone());
    tasks.spawn("security log", log);
    tracing::info!(
        address = settings.console_listen.to_string(),
        "the console runs"
    );
    ops::serve_console(listener, console::router(console), drain).await;
    tasks.finish().await
}

/// Returns the proxy that signs people in: with all three settings, or none.
fn signing_proxy(settings: &ConsoleSettings) -> anyhow::Result<Option<SigningProxy>> {
    let peers = settings.console_proxy_peers.clone();
    let set = (
        &settings.console_proxy_user_header,
        &settings.console_proxy_secret,
        peers.is_empty(),
    );
    let (header, secret) = match set {
        (Some(header), Some(secret), false) => (header, secret),
        (None, None, true) if settings.console_proxy_roles.is_empty() => return Ok(None),
        _ => anyhow::bail!(NotRight(
            "expected DISPATCH_CONSOLE_PROXY_USER_HEADER, DISPATCH_CONSOLE_PROXY_SECRET and DISPATCH_CONSOLE_PROXY_PEERS, \
             got some of them; set all three, or none"
        )),
    };
    anyhow::ensure!(
        secret.expose_secret().len() >= SECRET,
        NotRight(
            "expected 32 characters or more in DISPATCH_CONSOLE_PROXY_SECRET; use `openssl rand -hex 32`"
        )
    );
    let roles = settings.console_proxy_roles.iter();
    Ok(Some(SigningProxy {
        user_header: header.parse().context("the name of the user header")?,
        secret: secret.clone(),
        peers,
        roles: roles
            .map(|(user, role)| (user.clone(), role_of(*role)))
            .collect(),
    }))
}

const fn role_of(role: PersonRole) -> Role {
    match role {
        PersonRole::Viewer => Role::Viewer,
        PersonRole::Operator => Role::Operator,
        PersonRole::Admin => Role::Admin,
    }
}
