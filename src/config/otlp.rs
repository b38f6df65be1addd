//! Settings of the export of traces.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;

use super::secret;

/// The OpenTelemetry collector.
#[derive(Debug, Clone, Args)]
pub struct OtlpSettings {
    /// OpenTelemetry collector that spans are sent to with OTLP/HTTP, such as
    /// `https://collector.example:4318` (`/v1/traces` is appended); without it, no span is recorded
    #[arg(long, env = "DISPATCH_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Header fields for the collector, such as credentials: name=value[,name=value…], with
    /// percent-encoded values
    #[arg(long, env = "DISPATCH_OTLP_HEADERS", hide_env_values = true, value_parser = secret, value_name = "HEADERS")]
    pub otlp_headers: Option<SecretString>,
    /// PEM file with the certificate authorities trusted for the collector, instead of the
    /// system's
    #[arg(long, env = "DISPATCH_OTLP_CA", value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,
}
