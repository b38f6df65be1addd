//! Exports the spans of sampled traces to an OpenTelemetry collector: OTLP/HTTP with binary
//! protobuf (<https://opentelemetry.io/docs/specs/otlp/>).
//!
//! **Invariant:** no job waits for the collector: a span goes into a bounded queue, or is dropped
//! and counted.
//!
//! The SDK's own exporter is not used: it reads variables of its own, which would bypass `config`,
//! and does not report how many spans it drops.

mod encode;
mod exporter;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::Url;
use reqwest::header::{
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, InvalidHeaderName, InvalidHeaderValue,
    USER_AGENT,
};
use secrecy::{ExposeSecret, SecretString};

pub use exporter::{Exporter, exporter};

use crate::tls_policy::{COLLECTOR, Encryption, Endpoint, LinkFault, Peer, Requested};

/// The path of traces below the collector's address (OTLP specification, "OTLP/HTTP Request").
const TRACES: &str = "v1/traces";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const AGENT: &str = concat!("dispatch-worker/", env!("CARGO_PKG_VERSION"));

/// The settings of the collector, as given.
#[derive(Debug, Clone)]
pub struct CollectorSettings {
    /// The base address; `/v1/traces` is appended.
    pub endpoint: String,
    /// Additional header fields: `name=value,name=value`, the values percent-encoded.
    pub headers: Option<SecretString>,
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Permits plaintext to another machine.
    pub allow_plaintext: bool,
}

/// A collector that spans can be sent to.
#[derive(Debug, Clone)]
pub struct Collector {
    client: reqwest::Client,
    traces: Url,
}

/// An invalid setting of the collector. The text never contains a header's value.
#[derive(Debug, thiserror::Error)]
pub enum CollectorFault {
    #[error(
        "DISPATCH_OTLP_ENDPOINT: expected an address such as https://collector.example:4318, got {0}; use http or https, a host, \
         and no user, query or fragment"
    )]
    Address(&'static str),
    #[error(
        "DISPATCH_OTLP_HEADERS: expected name=value[,name=value…], got a field without `=`; encode commas in values as %2C"
    )]
    Headers,
    #[error("DISPATCH_OTLP_HEADERS: expected names of HTTP header fields; use for example api-key")]
    HeaderName(#[source] InvalidHeaderName),
    #[error("DISPATCH_OTLP_HEADERS: expected values of visible characters; encode others as %XX")]
    HeaderValue(#[source] InvalidHeaderValue),
    #[error(transparent)]
    Link(#[from] LinkFault),
    #[error("the client for the collector cannot be created")]
    Client(#[source] reqwest::Error),
}

impl Collector {
    /// Checks the settings. Nothing is connected.
    ///
    /// # Errors
    /// [`CollectorFault`]
    pub fn new(settings: &CollectorSettings) -> Result<Self, CollectorFault> {
        let traces = traces_url(&settings.endpoint)?;
        let link = Endpoint::new(
            settings.endpoint.clone().into(),
            settings.ca.clone(),
            settings.allow_plaintext,
        );
        let encryption = link.judge(&Peer {
            service: &COLLECTOR,
            host: traces.host_str().unwrap_or_default(),
            user: "",
            password: b"",
            requested: match traces.scheme() {
                "https" => Requested::Tls,
                _ => Requested::Plaintext,
            },
        })?;
        let mut headers = headers(settings.headers.as_ref())?;
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .tls_backend_preconfigured(match encryption {
                Encryption::Tls => link.tls(&COLLECTOR)?,
                Encryption::Plaintext => crate::tls_policy::no_tls()?,
            })
            .default_headers(headers)
            .build()
            .map_err(CollectorFault::Client)?;
        Ok(Self { client, traces })
    }
}

fn traces_url(endpoint: &str) -> Result<Url, CollectorFault> {
    let mut url = Url::parse(endpoint).map_err(|_| CollectorFault::Address("no URL"))?;
    let wrong = if !matches!(url.scheme(), "http" | "https") {
        Some("another scheme")
    } else if url.host_str().is_none_or(str::is_empty) {
        Some("no host")
    } else if !url.username().is_empty() || url.password().is_some() {
        Some("a user or a password, which belong in DISPATCH_OTLP_HEADERS")
    } else if url.query().is_some() || url.fragment().is_some() {
        Some("a query or a fragment")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        return Err(CollectorFault::Address(wrong));
    }
    let path = format!("{}/{TRACES}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// Parses header fields in the form of `OTEL_EXPORTER_OTLP_HEADERS`
/// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
fn headers(setting: Option<&SecretString>) -> Result<HeaderMap, CollectorFault> {
    let mut headers = HeaderMap::new();
    let fields = setting.map_or("", |setting| setting.expose_secret());
    for field in fields
        .split(',')
        .map(str::trim)
        .filter(|field| !field.is_empty())
    {
        let (name, value) = field.split_once('=').ok_or(CollectorFault::Headers)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes());
        let value: Vec<u8> = percent_decode_str(value.trim()).collect();
        let mut value = HeaderValue::from_bytes(&value).map_err(CollectorFault::HeaderValue)?;
        value.set_sensitive(true);
        headers.append(name.map_err(CollectorFault::HeaderName)?, value);
    }
    Ok(headers)
}
