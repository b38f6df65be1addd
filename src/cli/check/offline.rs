//! Checks of the settings without a connection.

use clap::Command;

use super::Finding;
use crate::app;
use crate::broker;
use crate::cli::settings;
use crate::config::{Links, WorkerSettings};
use crate::fault::chain;
use crate::secrets::Keyring;
use crate::store;

/// Checks that the environment has no unknown settings.
pub(super) fn environment(command: &Command) -> Finding {
    let known = settings::check_environment(command)
        .map(|()| "no unknown setting in the environment".to_owned());
    Finding::of("settings", known.map_err(|error| error.to_string()))
}

/// Runs every check, also after a failed one.
pub(super) fn findings(links: &Links, settings: &WorkerSettings) -> Vec<Finding> {
    let listen = settings.ops_listen;
    Vec::from([
        Finding::of("database_url", database(links)),
        Finding::of("amqp_url", amqp(links)),
        Finding::of("keyring", keyring(links)),
        Finding::of("providers", providers(settings)),
        if listen.ip().is_loopback() {
            Finding::ok("ops_listen", listen.to_string())
        } else {
            Finding::fail(
                "ops_listen",
                format!("expected a loopback address, got {listen}; use 127.0.0.1 and a port"),
            )
        },
        #[cfg(feature = "otlp")]
        Finding::of("otlp", otlp(links, settings)),
    ])
}

#[cfg(feature = "otlp")]
fn otlp(links: &Links, settings: &WorkerSettings) -> Result<String, String> {
    app::collector(links, settings)
        .map(|collector| match collector {
            Some(_) => "spans are sent to the collector".to_owned(),
            None => "no collector is set; no span is recorded".to_owned(),
        })
        .map_err(|error| chain(error.as_ref()))
}

fn database(links: &Links) -> Result<String, String> {
    let url = links.database_url().map_err(|error| error.to_string())?;
    store::pool(url, 1)
        .map(|_| "valid".to_owned())
        .map_err(|error| chain(&error))
}

fn amqp(links: &Links) -> Result<String, String> {
    let url = links.amqp_url().map_err(|error| error.to_string())?;
    let vhost = broker::checked(url).and_then(|url| broker::vhost_of(&url));
    vhost
        .map(|vhost| format!("valid; vhost {vhost}"))
        .map_err(|error| chain(&error))
}

fn keyring(links: &Links) -> Result<String, String> {
    let setting = links.keyring().map_err(|error| error.to_string())?;
    Keyring::parse(setting)
        .map(|keyring| format!("seals with key {}", keyring.first()))
        .map_err(|error| chain(&error))
}

fn providers(settings: &WorkerSettings) -> Result<String, String> {
    let plain = if settings.providers.allow_http_loopback {
        "; plaintext HTTP to this machine is allowed"
    } else {
        ""
    };
    app::check_providers(&settings.providers)
        .map(|()| format!("the settings are valid{plain}"))
        .map_err(|error| chain(error.as_ref()))
}
