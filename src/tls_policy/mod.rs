//! Links to Postgres and RabbitMQ: what is refused before anything is connected, and who is trusted.
//!
//! **Invariant:** what leaves this machine for Postgres or RabbitMQ is encrypted and its other end verified, unless a setting
//! that says nothing else allows plaintext.
//!
//! What everybody knows, default passwords and the key of docker-compose.yml, does not leave this machine (`published`).

mod published;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};

pub use self::published::Published;

/// A URL, and what the settings say of the way there. A URL alone stands for: the system's roots, no plaintext to others.
#[derive(Debug, Clone)]
pub struct Endpoint {
    url: SecretString,
    ca: Option<PathBuf>,
    allow_plaintext: bool,
    published: Published,
}

/// What can be linked to, as errors name it.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    ca_setting: &'static str,
    encrypted: &'static str,
    warned: Once,
}

/// The database.
pub static POSTGRES: Service = Service {
    name: "Postgres",
    ca_setting: "DISPATCH_DATABASE_CA",
    encrypted: "sslmode=require in the URL, or no sslmode",
    warned: Once::new(),
};
/// The broker.
pub static RABBITMQ: Service =
    Service { name: "RabbitMQ", ca_setting: "DISPATCH_AMQP_CA", encrypted: "amqps:// in the URL", warned: Once::new() };

/// One end of a link, as its URL has it.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// What it is.
    pub service: &'static Service,
    /// Its name or address; a path for a socket file.
    pub host: &'a str,
    /// Whom we are there.
    pub user: &'a str,
    /// Empty where there is none.
    pub password: &'a [u8],
    /// What the URL asks for.
    pub wish: Wish,
}

/// What a URL says of encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// It asks for it.
    Tls,
    /// It can be satisfied without.
    Plaintext,
    /// It says nothing.
    Silent,
}

/// How a link is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// With TLS and a verified certificate, or not at all.
    Tls,
    /// As the URL has it.
    Plaintext,
}

/// A link that is not made. `Display` says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    /// Others could read along.
    #[error(
        "{service} at {host} would be spoken to in plaintext; right is {right} (DISPATCH_ALLOW_PLAINTEXT_LINKS=true allows it, on a \
         network that is yours alone)"
    )]
    Plaintext {
        /// Which.
        service: &'static str,
        /// Where.
        host: String,
        /// What the URL should say.
        right: &'static str,
    },
    /// Everybody knows it.
    #[error("{service} at {host} would be given a default user or password; right is a user and a password of your own")]
    DefaultPassword {
        /// Which.
        service: &'static str,
        /// Where.
        host: String,
    },
    /// Everybody can open what it seals.
    #[error(
        "expected a key of your own in DISPATCH_KEYRING, got the one of docker-compose.yml, which everybody knows, and {service} at \
         {host} is not on this machine; use k1:<32 bytes in base64>, for example from `openssl rand -base64 32`, and keep the old \
         one behind it until `dispatch keys rotate` is done"
    )]
    PublishedKey {
        /// Which.
        service: &'static str,
        /// Where.
        host: String,
    },
    /// Verification is asked for where nothing is encrypted.
    #[error("{setting} is set and the URL asks for plaintext; right is {right}, or no {setting}")]
    Contradiction {
        /// The setting.
        setting: &'static str,
        /// What the URL should say.
        right: &'static str,
    },
    /// The file with the certificate authorities.
    #[error("{setting}: {} {why}; right is a PEM file with the certificates of your authority", path.display())]
    Ca {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// No cryptography.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

impl Endpoint {
    /// `ca` is a PEM file of the only authorities to trust; without one, the system's are.
    #[must_use]
    pub const fn new(url: SecretString, ca: Option<PathBuf>, allow_plaintext: bool) -> Self {
        Self { url, ca, allow_plaintext, published: Published { development: false, key: false } }
    }

    /// The same, where the settings have something that everybody knows.
    #[must_use]
    pub fn with_published(self, published: Published) -> Self {
        Self { published, ..self }
    }

    /// The URL, which holds a password.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.expose_secret()
    }

    /// How a link to `peer` is made. Plaintext that leaves this machine is warned of once a process.
    ///
    /// # Errors
    /// [`LinkFault`] where it is not made.
    pub fn judge(&self, peer: &Peer<'_>) -> Result<Encryption, LinkFault> {
        let Peer { service, host, wish, .. } = *peer;
        let is_here = is_this_machine(host);
        self.published.judge(peer)?;
        match wish {
            Wish::Tls => Ok(Encryption::Tls),
            Wish::Silent if is_here && self.ca.is_none() => Ok(Encryption::Plaintext),
            Wish::Silent => Ok(Encryption::Tls),
            Wish::Plaintext if self.ca.is_some() => {
                Err(LinkFault::Contradiction { setting: service.ca_setting, right: service.encrypted })
            }
            Wish::Plaintext if is_here => Ok(Encryption::Plaintext),
            Wish::Plaintext if self.allow_plaintext => {
                service.warned.call_once(|| {
                    tracing::warn!(
                        service = service.name,
                        host,
                        "PLAINTEXT: passwords and data go unencrypted to another machine, as DISPATCH_ALLOW_PLAINTEXT_LINKS allows"
                    );
                });
                Ok(Encryption::Plaintext)
            }
            Wish::Plaintext => {
                Err(LinkFault::Plaintext { service: service.name, host: host.to_owned(), right: service.encrypted })
            }
        }
    }

    /// What TLS to `service` is made with: certificates are verified, names too.
    ///
    /// # Errors
    /// [`LinkFault::Ca`] where the file of authorities does not read or holds none.
    pub fn tls(&self, service: &Service) -> Result<ClientConfig, LinkFault> {
        let roots = match &self.ca {
            Some(path) => {
                authorities(path).map_err(|why| LinkFault::Ca { setting: service.ca_setting, path: path.clone(), why })?
            }
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        trusting(roots)
    }
}

/// What goes where a driver wants TLS and the link has none: it trusts nobody.
///
/// # Errors
/// [`LinkFault::Tls`].
pub fn no_tls() -> Result<ClientConfig, LinkFault> {
    trusting(RootCertStore::empty())
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, LinkFault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(LinkFault::Tls)?.with_root_certificates(roots).with_no_client_auth())
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
    let pem = std::fs::read(path).map_err(|error| format!("does not read ({error})"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("is not PEM ({error})"))?;
        roots.add(certificate).map_err(|error| format!("has a certificate that does not read ({error})"))?;
    }
    if roots.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(roots) }
}

/// Whether `host` is this machine: `localhost`, a loopback address, a socket file.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.starts_with('/') || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer<'a>(host: &'a str, user: &'a str, password: &'a str, wish: Wish) -> Peer<'a> {
        Peer { service: &POSTGRES, host, user, password: password.as_bytes(), wish }
    }

    fn link(ca: Option<&str>, allow_plaintext: bool) -> Endpoint {
        Endpoint::new("postgres://canary".into(), ca.map(PathBuf::from), allow_plaintext)
    }

    #[test]
    fn what_leaves_this_machine_is_encrypted_unless_a_loud_setting_allows_otherwise() {
        let (here, there) = ("127.0.0.1", "db.example");
        for (host, wish, ca, allowed, right) in [
            (there, Wish::Silent, None, false, Ok(Encryption::Tls)),
            (there, Wish::Silent, None, true, Ok(Encryption::Tls)),
            (there, Wish::Tls, Some("ca.pem"), false, Ok(Encryption::Tls)),
            (there, Wish::Plaintext, None, false, Err("plaintext; right is sslmode=require")),
            (there, Wish::Plaintext, None, true, Ok(Encryption::Plaintext)),
            (there, Wish::Plaintext, Some("ca.pem"), true, Err("DISPATCH_DATABASE_CA is set")),
            (here, Wish::Silent, None, false, Ok(Encryption::Plaintext)),
            (here, Wish::Silent, Some("ca.pem"), false, Ok(Encryption::Tls)),
            (here, Wish::Tls, None, false, Ok(Encryption::Tls)),
            (here, Wish::Plaintext, None, false, Ok(Encryption::Plaintext)),
            (here, Wish::Plaintext, Some("ca.pem"), false, Err("DISPATCH_DATABASE_CA is set")),
        ] {
            let judged = link(ca, allowed).judge(&peer(host, "worker", "of its own", wish));
            match (judged, right) {
                (Ok(found), Ok(right)) => assert_eq!(found, right, "{host} {wish:?} {ca:?} {allowed}"),
                (Err(fault), Err(part)) => assert!(fault.to_string().contains(part), "{fault}"),
                (judged, right) => panic!("{host} {wish:?} {ca:?} {allowed}: {judged:?}, right is {right:?}"),
            }
        }
    }

    #[test]
    fn default_passwords_stay_on_this_machine_whatever_the_settings_allow() {
        for (user, password) in [
            ("guest", "guest"),
            ("guest", "of its own"),
            ("postgres", "postgres"),
            ("dispatch", "Password"),
            ("dispatch", "dispatch"),
            ("Dispatch", "dispatch"),
            ("dispatch", "changeme"),
            ("dispatch", "SECRET"),
        ] {
            for wish in [Wish::Tls, Wish::Plaintext] {
                let fault = link(None, true).judge(&peer("db.example", user, password, wish)).unwrap_err();
                assert!(matches!(fault, LinkFault::DefaultPassword { .. }), "{user}");
                assert!(fault.to_string().contains("right is") && !fault.to_string().contains(password), "{fault}");
                assert!(link(None, false).judge(&peer("::1", user, password, wish)).is_ok());
            }
        }
        for (user, password) in [("postgres", "kT7v"), ("dispatch", ""), ("dispatch", "passwords")] {
            assert!(link(None, false).judge(&peer("db.example", user, password, Wish::Tls)).is_ok(), "{user}");
        }
    }

    #[test]
    fn this_machine_is_told_from_others() {
        for here in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "/run/postgresql"] {
            assert!(is_this_machine(here), "{here}");
        }
        for there in ["localhost.example", "127.0.0.1.example", "10.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "", "rabbitmq"] {
            assert!(!is_this_machine(there), "{there}");
        }
    }

    #[test]
    fn a_file_without_authorities_says_what_is_wrong_with_it() {
        let folder = std::env::temp_dir().join(format!("authorities-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        for (name, text, part) in [
            ("missing", None, "does not read"),
            ("empty", Some(""), "holds no certificate"),
            ("cut", Some("-----BEGIN CERTIFICATE-----\nAAAA"), "is not PEM"),
            ("bad", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "certificate that does not read"),
        ] {
            let path = folder.join(name);
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let fault = Endpoint::new("x".into(), Some(path), false).tls(&RABBITMQ).unwrap_err().to_string();
            assert!(fault.contains(part) && fault.contains("DISPATCH_AMQP_CA") && fault.contains("right is"), "{fault}");
        }
        std::fs::remove_dir_all(folder).unwrap();
        assert!(!format!("{:?}", link(None, false)).contains("canary"));
    }
}
