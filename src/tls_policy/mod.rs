//! The TLS policy for links to Postgres and RabbitMQ: which links are refused before they connect,
//! and which authorities are trusted.
//!
//! **Invariant:** traffic to Postgres or RabbitMQ on another machine is encrypted and the peer
//! verified, unless a setting dedicated to that purpose permits plaintext.
//!
//! Published secrets (default passwords, the key of docker-compose.yml) are not used for other
//! machines (`published`).

mod published;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};

pub use self::published::Published;

/// A URL and the settings of the link. A URL alone means the system's authorities, and no
/// plaintext to other machines.
#[derive(Debug, Clone)]
pub struct Endpoint {
    url: SecretString,
    ca: Option<PathBuf>,
    allow_plaintext: bool,
    published: Published,
}

/// A server that can be linked to, as errors name it.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    ca_setting: &'static str,
    encrypted: &'static str,
    warned: Once,
}

/// The database server.
pub static POSTGRES: Service = Service {
    name: "Postgres",
    ca_setting: "DISPATCH_DATABASE_CA",
    encrypted: "sslmode=require in the URL, or no sslmode",
    warned: Once::new(),
};
/// The broker.
pub static RABBITMQ: Service = Service {
    name: "RabbitMQ",
    ca_setting: "DISPATCH_AMQP_CA",
    encrypted: "amqps:// in the URL",
    warned: Once::new(),
};
/// The OpenTelemetry collector.
pub static COLLECTOR: Service = Service {
    name: "the OpenTelemetry collector",
    ca_setting: "DISPATCH_OTLP_CA",
    encrypted: "https:// in DISPATCH_OTLP_ENDPOINT",
    warned: Once::new(),
};

/// The peer of a link, as its URL states it.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// The kind of server.
    pub service: &'static Service,
    /// The host name or address, or the path of a socket file.
    pub host: &'a str,
    /// The user name for the server.
    pub user: &'a str,
    /// The password; empty if there is none.
    pub password: &'a [u8],
    /// The encryption that the URL asks for.
    pub requested: Requested,
}

/// The encryption that a URL asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// The URL requires TLS.
    Tls,
    /// The URL permits plaintext.
    Plaintext,
    /// The URL states nothing.
    Unspecified,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// TLS with a verified certificate, or no link.
    Tls,
    /// As the URL states.
    Plaintext,
}

/// The reason why a link is refused. `Display` states what to use instead.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    /// The link to another machine would not be encrypted.
    #[error(
        "expected an encrypted link to {service} at {host}, got plaintext; use {right} (DISPATCH_ALLOW_PLAINTEXT_LINKS=true \
         permits plaintext, for a network of your own)"
    )]
    Plaintext {
        /// The server.
        service: &'static str,
        host: String,
        /// What to use in the URL.
        right: &'static str,
    },
    /// The link to another machine would use a default user or password.
    #[error(
        "expected a user and a password of your own for {service} at {host}, got a default user or password"
    )]
    DefaultPassword {
        /// The server.
        service: &'static str,
        host: String,
    },
    /// Secrets in a database on another machine would be sealed with a published key.
    #[error(
        "expected a key of your own in DISPATCH_KEYRING, got the published one of docker-compose.yml, and {service} at {host} is \
         not on this machine; use k1:<32 bytes in base64>, for example from `openssl rand -base64 32`, and keep the old one \
         behind it until `dispatch keys rotate` is done"
    )]
    PublishedKey {
        /// The server.
        service: &'static str,
        host: String,
    },
    /// An authority is set, but the URL permits plaintext.
    #[error("{setting} is set, but the URL permits plaintext; use {right}, or unset {setting}")]
    Contradiction {
        setting: &'static str,
        /// What to use in the URL.
        right: &'static str,
    },
    /// The file of certificate authorities cannot be used.
    #[error("{setting}: {} {why}; use a PEM file with the certificates of your authority", path.display())]
    Ca {
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

impl Endpoint {
    /// Creates an endpoint. `ca` is a PEM file of the only authorities to trust; without one, the
    /// system's are trusted.
    #[must_use]
    pub const fn new(url: SecretString, ca: Option<PathBuf>, allow_plaintext: bool) -> Self {
        Self {
            url,
            ca,
            allow_plaintext,
            published: Published {
                development: false,
                key: false,
            },
        }
    }

    /// Returns the endpoint with the published secrets that the settings use.
    #[must_use]
    pub fn with_published(self, published: Published) -> Self {
        Self { published, ..self }
    }

    /// Returns the URL, which contains a password.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.expose_secret()
    }

    /// Decides how a link to `peer` is encrypted. Logs a warning, once per process, about
    /// plaintext to another machine.
    ///
    /// # Errors
    /// [`LinkFault`] if the link is refused.
    pub fn judge(&self, peer: &Peer<'_>) -> Result<Encryption, LinkFault> {
        let Peer {
            service,
            host,
            requested,
            ..
        } = *peer;
        let is_here = is_this_machine(host);
        self.published.judge(peer)?;
        match requested {
            Requested::Tls => Ok(Encryption::Tls),
            Requested::Unspecified if is_here && self.ca.is_none() => Ok(Encryption::Plaintext),
            Requested::Unspecified => Ok(Encryption::Tls),
            Requested::Plaintext if self.ca.is_some() => Err(LinkFault::Contradiction {
                setting: service.ca_setting,
                right: service.encrypted,
            }),
            Requested::Plaintext if is_here => Ok(Encryption::Plaintext),
            Requested::Plaintext if self.allow_plaintext => {
                service.warned.call_once(|| {
                    tracing::warn!(
                        service = service.name,
                        host,
                        "PLAINTEXT: the link to another machine is not encrypted, as DISPATCH_ALLOW_PLAINTEXT_LINKS permits; \
                         others on the network can read passwords and data"
                    );
                });
                Ok(Encryption::Plaintext)
            }
            Requested::Plaintext => Err(LinkFault::Plaintext {
                service: service.name,
                host: host.to_owned(),
                right: service.encrypted,
            }),
        }
    }

    /// Returns the TLS configuration for `service`, which verifies certificates and names.
    ///
    /// # Errors
    /// [`LinkFault::Ca`] if the file of authorities cannot be read or contains none;
    /// [`LinkFault::Tls`].
    pub fn tls(&self, service: &Service) -> Result<ClientConfig, LinkFault> {
        let roots = match &self.ca {
            Some(path) => authorities(path).map_err(|why| LinkFault::Ca {
                setting: service.ca_setting,
                path: path.clone(),
                why,
            })?,
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        trusting(roots)
    }
}

/// Returns a TLS configuration without authorities, for drivers that require one although the link
/// does not use TLS.
///
/// # Errors
/// [`LinkFault::Tls`].
pub fn no_tls() -> Result<ClientConfig, LinkFault> {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, LinkFault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder
        .map_err(LinkFault::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl From<SecretString> for Endpoint {
    fn from(url: SecretString) -> Self {
        Self::new(url, None, false)
    }
}

impl From<&SecretString> for Endpoint {
    fn from(url: &SecretString) -> Self {
        url.clone().into()
    }
}

impl From<&Self> for Endpoint {
    fn from(link: &Self) -> Self {
        link.clone()
    }
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let pem = std::fs::read(path).map_err(|error| format!("cannot be read ({error})"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM ({error})"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("has a certificate that cannot be parsed ({error})"))?;
    }
    if roots.is_empty() {
        Err("holds no certificate".to_owned())
    } else {
        Ok(roots)
    }
}

/// Returns whether `host` is this machine: `localhost`, a loopback address, or a socket file.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.starts_with('/')
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
