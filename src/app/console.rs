//! The process of the console: two small pools, a listener, and the end on a signal.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::assembly::keyring;
use super::tasks::{Tasks, drain_on_signals};
use crate::config::{ConsoleSettings, Links, NotRight};
use crate::console::{self, Console, ConsoleParts};
use crate::ops::{self, HostNames};
use crate::store::{self, Store};

/// Connections that read, whose statements end after 2 s.
const READS: usize = 4;
/// Connections that act.
const ACTS: usize = 2;

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
