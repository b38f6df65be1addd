//! The console that is left running after the demo.

use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret;

use super::fleet::{Fleet, READY_LIMIT, demo, environment, is_ok};
use crate::devkit::ports;
use crate::devkit::process::{Abrupt, Launch, Process};
use crate::operations::{self, TokenSettings};
use crate::store::{self, Role, Store};

/// How long the token of the link is valid.
const VALID: Duration = Duration::from_hours(24);

/// A running console, with a link that signs a person in. The token is behind the `#` of the link:
/// a browser does not send it to any server.
pub(super) struct RunningConsole {
    pub(super) link: String,
    pub(super) process: Process,
}

/// Starts the console, and creates a token with the role `admin`.
pub(super) async fn start(fleet: &Fleet) -> anyhow::Result<RunningConsole> {
    let port = ports::reserve().context("no free port")?.number();
    let folder = &fleet.folder.path;
    let mut launch = Launch::lasting("console", &fleet.binary, folder, Abrupt::Kill)?;
    launch.command.arg("console");
    for (name, value) in environment(&fleet.links) {
        launch.command.env(name, value);
    }
    let address = format!("127.0.0.1:{port}");
    launch.command.env("DISPATCH_CONSOLE_LISTEN", &address);
    let mut process = launch.spawn()?;
    let page = format!("http://{address}/sign-in");
    let ready = process.wait_ready(READY_LIMIT, async || is_ok(&fleet.http, &page).await);
    ready.await.context("the console does not answer")?;
    let store = Store::new(store::pool(&fleet.links.worker_url, 1)?);
    let settings = TokenSettings {
        name: "demo".to_owned(),
        role: Role::Admin,
        source: None,
        organizations: None,
        valid: VALID,
    };
    let (_, token) = operations::create_token(&store, &demo(), settings).await?;
    Ok(RunningConsole {
        link: format!("{page}#{}", token.expose_secret()),
        process,
    })
}
