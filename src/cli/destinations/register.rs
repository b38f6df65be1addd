//! `dispatch destinations register`: registers a destination.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::table;
use crate::app;
use crate::cli::connect;
use crate::cli::consent::Consent;
use crate::cli::output::Output;
use crate::cli::secret::SecretSource;
use crate::config::{Links, ProviderLinks, channel_kinds_help};
use crate::operations::{self, CheckedDestination, DestinationSettings};

/// Register a destination, or change the one with this name; --default and --unknown-policy keep
/// their values if omitted, and so does the secret if kind, host and channel are unchanged
#[derive(Debug, Args)]
pub(in crate::cli) struct Register {
    #[command(flatten)]
    links: Links,
    #[command(flatten)]
    providers: ProviderLinks,
    /// Organization of the destination
    #[arg(long, value_name = "SLUG")]
    organization: String,
    /// Name of the destination, unique in the organization
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    #[arg(long, help = channel_kinds_help())]
    kind: String,
    /// Public settings of the channel, a JSON object
    #[arg(long, value_name = "JSON", value_parser = settings)]
    config: Value,
    #[command(flatten)]
    source: SecretSource,
    /// Whether jobs that name no destination use this one; initially false
    #[arg(long, value_name = "true|false")]
    default: Option<bool>,
    /// Policy for a message with an unknown outcome; initially resend
    #[arg(long, value_enum)]
    unknown_policy: Option<UnknownPolicy>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum UnknownPolicy {
    /// Send the message again
    Resend,
    /// Park the job until a person decides
    Hold,
}

impl Register {
    pub(in crate::cli) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        self.consent.can_be_had()?;
        let secret = self.source.optional()?;
        let keyring = app::keyring(&self.links)?;
        let store = connect::store(&self.links).await?;
        let services = app::services(&self.links, &self.providers)?;
        let settings = DestinationSettings {
            organization: &self.organization,
            name: &self.name,
            kind: &self.kind,
            config: &self.config,
            secret: secret.as_ref(),
            default: self.default,
            unknown_policy: self.unknown_policy.map(UnknownPolicy::word),
        };
        let checked = CheckedDestination::of(settings, &services).await?;
        self.consent.to(&format!(
            "Register destination {} of {}?",
            self.name, self.organization
        ))?;
        let actor = self.consent.actor();
        let changed = operations::register_destination(&store, &keyring, &actor, &checked);
        output.changed(&changed.await?, table)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl UnknownPolicy {
    const fn word(self) -> &'static str {
        match self {
            Self::Resend => "resend",
            Self::Hold => "hold",
        }
    }
}

fn settings(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if value.is_object() {
        Ok(value)
    } else {
        Err("expected a JSON object, got another JSON value".to_owned())
    }
}
