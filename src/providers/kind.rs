//! The description of a channel: everything that the rest of the program needs to know of it.

use std::collections::BTreeMap;
use std::fmt;

use super::channel::{CHANNELS, Channel};
#[cfg(feature = "devkit")]
use super::contract::Fact;
use super::http::HttpClient;
use super::http_fault::Provider;
#[cfg(feature = "devkit")]
use super::simulated::SimulatedChannel;
use super::smtp::SmtpServer;

/// A channel, described by one constant beside its code.
pub struct ChannelKind {
    /// The provider. Its name is the `kind` of destinations in Postgres.
    pub provider: &'static Provider,
    /// The setting for the address of its API; `None` if every destination has an address of its
    /// own.
    pub api: Option<ApiSetting>,
    /// The public settings of a destination that do not affect where its secret is sent. All
    /// others do.
    pub without_place: &'static [&'static str],
    /// Creates the channel.
    pub make: fn(&mut ChannelParts) -> Box<dyn Channel>,
    /// Every request that the channel may send over HTTP.
    #[cfg(feature = "devkit")]
    pub requests: &'static [Fact],
    /// The simulation for tests; `None` if the devkit simulates the channel itself, because its
    /// state is more than rooms with messages.
    #[cfg(feature = "devkit")]
    pub simulated: Option<SimulatedChannel>,
}

/// The parts that channels are made of.
#[derive(Debug)]
pub struct ChannelParts {
    /// The client of all calls over HTTP.
    pub http: HttpClient,
    /// The addresses of the channels' APIs.
    pub urls: ApiUrls,
    /// The mail server. The only channel that uses it takes it.
    pub smtp: Option<SmtpServer>,
}

/// The setting for the address of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiSetting {
    /// The environment variable, `DISPATCH_…_URL`.
    pub variable: &'static str,
    /// The vendor's address.
    pub default: &'static str,
    /// The help text.
    pub help: &'static str,
}

impl ApiSetting {
    /// Returns the name of the setting in the parser: `slack_url`.
    #[must_use]
    pub fn id(&self) -> String {
        self.variable
            .trim_start_matches("DISPATCH_")
            .to_ascii_lowercase()
    }
}

impl ChannelKind {
    /// Returns the `kind` of destinations in Postgres. Stored, so never renamed.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.provider.name
    }
}

impl fmt::Debug for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The addresses of the channels' APIs, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiUrls(BTreeMap<&'static str, String>);

impl ApiUrls {
    /// Returns the addresses that `address_of` gives for each setting.
    pub fn from_settings(address_of: impl Fn(&ApiSetting) -> String) -> Self {
        let address = |kind: &&ChannelKind| Some((kind.name(), address_of(kind.api.as_ref()?)));
        Self(CHANNELS.iter().filter_map(address).collect())
    }

    /// Returns the address of a channel's API; empty if it has no setting.
    #[must_use]
    pub fn of(&self, kind: &ChannelKind) -> &str {
        self.0.get(kind.name()).map_or("", String::as_str)
    }

    /// Returns the addresses with another one for `kind`.
    #[must_use]
    pub fn with(mut self, kind: &ChannelKind, address: &str) -> Self {
        self.0.insert(kind.name(), address.to_owned());
        self
    }
}

impl Default for ApiUrls {
    /// Returns the vendors' addresses.
    fn default() -> Self {
        Self::from_settings(|setting| setting.default.to_owned())
    }
}
