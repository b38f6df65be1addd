//! Clients of other services: Azure DevOps, Microsoft Entra, and the channels that deliver
//! messages.
//!
//! Only this module uses the drivers of HTTP and SMTP. [`http`] and [`http_fault`] contain the
//! parts common to all calls: limits, deadlines, and the class and certainty of each failure.
//! [`address`] decides which addresses may be called.

pub mod address;
pub mod azure_devops;
mod call_span;
pub mod channel;
#[cfg(feature = "devkit")]
pub mod contract;
pub mod discord;
pub mod email;
mod email_recipients;
pub mod entra;
pub mod google_chat;
pub mod governor;
pub mod http;
pub mod http_fault;
pub mod kind;
pub mod said;
pub mod scrub;
#[cfg(feature = "devkit")]
pub mod simulated;
pub mod slack;
pub mod smtp;
mod starttls;
pub mod teams;
mod text;
pub mod webhook;

#[cfg(test)]
mod address_tests;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod links_tests;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod scripted_smtp;
#[cfg(test)]
mod smtp_tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use self::azure_devops::{AZURE_DEVOPS, AzureDevOps, BadHost, Hosts};
use self::channel::{CHANNELS, Channel, channels};
use self::discord::interaction::{DISCORD_INTERACTION, DiscordInteraction};
use self::entra::{BadEntra, ENTRA, Entra, EntraSettings};
use self::governor::Governor;
use self::http::{ClientFault, HttpClient};
use self::http_fault::Provider;
use self::kind::{ApiUrls, ChannelParts};
use self::smtp::{BadSmtp, SmtpServer};

/// The providers that are not channels of destinations.
static OTHERS: [&Provider; 3] = [&AZURE_DEVOPS, &ENTRA, &DISCORD_INTERACTION];

/// Returns the name of every provider, as in error codes and metrics.
pub fn provider_names() -> impl Iterator<Item = &'static str> {
    providers().map(|provider| provider.name)
}

/// Returns the name of a provider in messages for people: `Azure DevOps`.
#[must_use]
pub fn provider_title(name: &str) -> Option<&'static str> {
    let known = providers().find(|provider| provider.name == name);
    known.map(|provider| provider.title)
}

/// Returns every provider.
fn providers() -> impl Iterator<Item = &'static Provider> {
    let channels = CHANNELS.iter().map(|kind| kind.provider);
    OTHERS.into_iter().chain(channels)
}

/// The addresses of the providers, and how they are called.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// The hosts of Azure DevOps.
    pub hosts: Hosts,
    /// The settings of Microsoft Entra, which refreshes tokens.
    pub entra: EntraSettings,
    /// The addresses of the channels' APIs.
    pub urls: ApiUrls,
    /// The mail server as a URL, see [`SmtpServer::parse`]. Without one, no mail is sent.
    pub smtp_server: Option<SecretString>,
    /// Permits plain `http:` to this machine (development).
    pub allow_http_loopback: bool,
    /// The longest duration of one call.
    pub call_timeout: Duration,
}

impl Default for ProviderSettings {
    /// Returns the vendors' addresses, https only, and a timeout of ten seconds.
    fn default() -> Self {
        Self {
            hosts: Hosts::default(),
            entra: EntraSettings::default(),
            urls: ApiUrls::default(),
            smtp_server: None,
            allow_http_loopback: false,
            call_timeout: Duration::from_secs(10),
        }
    }
}

/// The providers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupFault {
    /// The HTTP client cannot be created.
    #[error(transparent)]
    Client(#[from] ClientFault),
    /// The address of an Azure DevOps host is invalid.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// A setting of Microsoft Entra is invalid.
    #[error(transparent)]
    Entra(#[from] BadEntra),
    /// The address of a channel's API is invalid: the channel's title, and what is expected.
    #[error("the setting for {0}'s API is invalid: {1}")]
    Api(&'static str, &'static str),
    /// The address of the mail server is invalid.
    #[error("the setting for the mail server is invalid")]
    Smtp(#[from] BadSmtp),
}

/// All providers.
pub struct Providers {
    /// The client of Azure DevOps.
    pub azure_devops: AzureDevOps,
    /// The client of Microsoft Entra, which issues tokens for Azure DevOps.
    pub entra: Entra,
    /// The channels that deliver messages.
    pub channels: Vec<Box<dyn Channel>>,
    /// The governor of their calls. The client of Azure DevOps asks it itself; the caller of a
    /// channel asks it before the call.
    pub governor: Arc<Governor>,
    /// The channel of answers to clicks in Discord. No destination has its kind.
    pub interaction: DiscordInteraction,
    /// See [`ProviderSettings::call_timeout`]. The call of an effect has the deadline of its
    /// intent instead.
    pub call_timeout: Duration,
}

impl Providers {
    /// Creates the clients, without any call. Requires that rustls' cryptography provider is
    /// installed.
    ///
    /// # Errors
    /// [`SetupFault`] states which setting is invalid and what is expected.
    pub fn new(settings: &ProviderSettings, governor: Arc<Governor>) -> Result<Self, SetupFault> {
        let http = HttpClient::new(settings.allow_http_loopback)?;
        for kind in CHANNELS.iter().filter(|kind| kind.api.is_some()) {
            http.parse_url(settings.urls.of(kind))
                .map_err(|why| SetupFault::Api(kind.provider.title, why))?;
        }
        let smtp = settings
            .smtp_server
            .as_ref()
            .map(|url| SmtpServer::parse(url, settings.allow_http_loopback))
            .transpose()?;
        let channels = channels(ChannelParts {
            http: http.clone(),
            urls: settings.urls.clone(),
            smtp,
        });
        let interaction = DiscordInteraction::new(http.clone(), settings.urls.of(&discord::KIND));
        let call_timeout = settings.call_timeout;
        let entra = Entra::new(http.clone(), &settings.entra)?;
        let azure_devops =
            AzureDevOps::new(http, Arc::clone(&governor), &settings.hosts, call_timeout)?;
        Ok(Self {
            azure_devops,
            entra,
            channels,
            governor,
            interaction,
            call_timeout,
        })
    }

    /// Returns the channel for destinations of `kind`. The channel of answers to clicks is not
    /// among them.
    #[must_use]
    pub fn channel(&self, kind: &str) -> Option<&dyn Channel> {
        self.channels
            .iter()
            .find(|channel| channel.kind() == kind)
            .map(AsRef::as_ref)
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.channels.iter().map(|channel| channel.kind()).collect();
        f.debug_struct("Providers")
            .field("azure_devops", &self.azure_devops)
            .field("channels", &kinds)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_before_anything_is_called() {
        drop(scripted::client());
        let good = ProviderSettings::default();
        let governor = governor::alone;
        let providers = Providers::new(&good, governor()).unwrap();
        assert!(providers.channel("discord").is_some() && providers.channel("pigeon").is_none());
        let plain = Hosts {
            graph: "http://vssps.dev.azure.com".to_owned(),
            ..Hosts::default()
        };
        let error = Providers::new(
            &ProviderSettings {
                hosts: plain,
                ..good.clone()
            },
            governor(),
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("graph") && error.contains("https://"),
            "{error}"
        );
        let error = Providers::new(
            &ProviderSettings {
                urls: ApiUrls::default().with(&discord::KIND, "discord.com"),
                ..good
            },
            governor(),
        )
        .unwrap_err();
        assert!(error.to_string().contains("Discord"), "{error}");
    }
}
