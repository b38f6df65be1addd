//! The ways to other people's services: Azure DevOps, Microsoft Entra, and the channels messages go through.
//!
//! The only place that names the drivers of HTTP and SMTP. What is common to all calls (limits, deadlines, the class and
//! certainty of each failure) is in [`http`] and [`http_fault`]; which addresses may be called is in [`address`].

pub mod address;
pub mod azure_devops;
pub mod channel;
pub mod discord;
pub mod discord_interaction;
pub mod discord_webhook;
mod discord_words;
pub mod email;
mod email_recipients;
pub mod entra;
pub mod governor;
pub mod http;
pub mod http_fault;
pub mod said;
pub mod scrub;
pub mod slack;
mod slack_words;
pub mod smtp;
mod starttls;
pub mod teams;
mod teams_address;
mod teams_answer;
mod text;
pub mod webhook;

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

use self::azure_devops::{AzureDevOps, BadHost, Hosts};
use self::channel::{Channel, channels};
use self::discord_interaction::DiscordInteraction;
use self::entra::{BadEntra, Entra, EntraSettings};
use self::governor::Governor;
use self::http::{ClientFault, HttpClient};
use self::smtp::{BadSmtp, SmtpServer};

/// Where providers are and how they are called.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// Azure DevOps' hosts.
    pub hosts: Hosts,
    /// Where tokens are refreshed.
    pub entra: EntraSettings,
    /// Discord's API, with its version.
    pub discord_api: String,
    /// Slack's Web API.
    pub slack_api: String,
    /// The mail server as a URL, see [`SmtpServer::parse`]; without one, no mail goes out.
    pub smtp_server: Option<SecretString>,
    /// Lets plain `http:` through to this machine (development).
    pub allow_http_loopback: bool,
    /// The longest time for one call.
    pub call_timeout: Duration,
}

impl Default for ProviderSettings {
    /// The vendors' own addresses, https only, ten seconds.
    fn default() -> Self {
        Self {
            hosts: Hosts::default(),
            entra: EntraSettings::default(),
            discord_api: "https://discord.com/api/v10".to_owned(),
            slack_api: "https://slack.com/api".to_owned(),
            smtp_server: None,
            allow_http_loopback: false,
            call_timeout: Duration::from_secs(10),
        }
    }
}

/// The providers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupFault {
    /// No client.
    #[error(transparent)]
    Client(#[from] ClientFault),
    /// An address of Azure DevOps.
    #[error(transparent)]
    Host(#[from] BadHost),
    /// A setting of Microsoft Entra's.
    #[error(transparent)]
    Entra(#[from] BadEntra),
    /// The address of Discord's API.
    #[error("the setting for Discord's API is not usable: {0}")]
    Discord(&'static str),
    /// The address of Slack's API.
    #[error("the setting for Slack's API is not usable: {0}")]
    Slack(&'static str),
    /// The mail server.
    #[error("the setting for the mail server is not usable")]
    Smtp(#[from] BadSmtp),
}

/// All providers.
pub struct Providers {
    /// The tracker.
    pub azure_devops: AzureDevOps,
    /// Who gives new tokens for it.
    pub entra: Entra,
    /// What messages go through.
    pub channels: Vec<Box<dyn Channel>>,
    /// Lets their calls out. Azure DevOps asks it itself; who delivers through a channel asks it before.
    pub governor: Arc<Governor>,
    /// What answers go through to who clicked in Discord; no destination is of its kind.
    pub interaction: DiscordInteraction,
    /// See [`ProviderSettings::call_timeout`]; the deadline of an effect's call is its intent's.
    pub call_timeout: Duration,
}

impl Providers {
    /// Sets them up; calls nobody. Wants rustls' cryptography provider installed.
    ///
    /// # Errors
    /// [`SetupFault`] says which setting is wrong and what would be right.
    pub fn new(settings: &ProviderSettings, governor: Arc<Governor>) -> Result<Self, SetupFault> {
        let http = HttpClient::new(settings.allow_http_loopback)?;
        http.parse_url(&settings.discord_api).map_err(SetupFault::Discord)?;
        http.parse_url(&settings.slack_api).map_err(SetupFault::Slack)?;
        let smtp = settings.smtp_server.as_ref().map(|url| SmtpServer::parse(url, settings.allow_http_loopback)).transpose()?;
        let channels = channels(&http, settings, smtp);
        let interaction = DiscordInteraction::new(http.clone(), &settings.discord_api);
        let call_timeout = settings.call_timeout;
        let entra = Entra::new(http.clone(), &settings.entra)?;
        let azure_devops = AzureDevOps::new(http, Arc::clone(&governor), &settings.hosts, call_timeout)?;
        Ok(Self { azure_devops, entra, channels, governor, interaction, call_timeout })
    }

    /// The channel for destinations of `kind`; the answer to an interaction has no destination.
    #[must_use]
    pub fn channel(&self, kind: &str) -> Option<&dyn Channel> {
        self.channels.iter().find(|channel| channel.kind() == kind).map(AsRef::as_ref)
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<_> = self.channels.iter().map(|channel| channel.kind()).collect();
        f.debug_struct("Providers").field("azure_devops", &self.azure_devops).field("channels", &kinds).finish()
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
        let plain = Hosts { graph: "http://vssps.dev.azure.com".to_owned(), ..Hosts::default() };
        let error = Providers::new(&ProviderSettings { hosts: plain, ..good.clone() }, governor()).unwrap_err().to_string();
        assert!(error.contains("graph") && error.contains("https://"), "{error}");
        let error = Providers::new(&ProviderSettings { discord_api: "discord.com".to_owned(), ..good }, governor()).unwrap_err();
        assert!(error.to_string().contains("Discord"), "{error}");
    }
}
