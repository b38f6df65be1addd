//! Published secrets: default users and passwords, and the password and the key of
//! docker-compose.yml. They are accepted only for servers on this machine.
//!
//! The containers of docker-compose.yml run on one machine, but reach each other by container
//! names. DISPATCH_DEVELOPMENT declares such a network. It applies to names without a dot, which
//! resolve only in such a network, and never to an address or a domain name.

use std::sync::Once;

use super::{LinkFault, Peer, is_this_machine};

/// The published secrets that the settings use, and whether they may. The default is neither.
#[derive(Debug, Clone, Copy, Default)]
pub struct Published {
    /// DISPATCH_DEVELOPMENT: servers under names without a dot count as this machine.
    pub development: bool,
    /// Whether DISPATCH_KEYRING seals with the key of docker-compose.yml.
    pub key: bool,
}

static WARNED: Once = Once::new();

impl Published {
    /// Refuses published secrets for a server on another machine.
    ///
    /// # Errors
    /// [`LinkFault::DefaultPassword`], [`LinkFault::PublishedKey`].
    pub(super) fn judge(self, peer: &Peer<'_>) -> Result<(), LinkFault> {
        if self.development {
            WARNED.call_once(|| {
                tracing::warn!(
                    "DEVELOPMENT: DISPATCH_DEVELOPMENT is set, so a published key and published passwords are accepted for \
                     servers under names without a dot; unset it in production"
                );
            });
        }
        let (service, host) = (peer.service.name, peer.host);
        if is_this_machine(host) {
            return Ok(());
        }
        let is_development = self.development && is_container_name(host);
        if has_default_password(peer) || (peer.password == COMPOSE_PASSWORD && !is_development) {
            return Err(LinkFault::DefaultPassword {
                service,
                host: host.to_owned(),
            });
        }
        if self.key && !is_development {
            return Err(LinkFault::PublishedKey {
                service,
                host: host.to_owned(),
            });
        }
        Ok(())
    }
}

/// Returns whether `host` is the name of a container, such as `postgres`: neither an address nor a
/// domain name.
fn is_container_name(host: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    host.starts_with(|c: char| c.is_ascii_alphabetic()) && host.chars().all(is_plain)
}

/// Returns whether the user is a default one, or the password is a common default or equals the
/// user name.
fn has_default_password(peer: &Peer<'_>) -> bool {
    let password = peer.password.to_ascii_lowercase();
    let is_known = DEFAULT_PASSWORDS
        .iter()
        .any(|known| known.as_bytes() == password);
    let is_the_user = !password.is_empty() && password == peer.user.to_ascii_lowercase().as_bytes();
    peer.user == "guest" || is_known || is_the_user
}

/// The password in docker-compose.yml.
const COMPOSE_PASSWORD: &[u8] = b"development-only";

/// The default passwords of servers, of their images, and of the examples in their manuals.
const DEFAULT_PASSWORDS: [&str; 16] = [
    "guest",
    "postgres",
    "postgresql",
    "rabbitmq",
    "password",
    "passw0rd",
    "pass",
    "admin",
    "root",
    "user",
    "test",
    "secret",
    "changeme",
    "default",
    "123456",
    "12345678",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls_policy::{POSTGRES, Requested};

    fn judge(published: Published, host: &str, password: &str) -> Result<(), LinkFault> {
        published.judge(&Peer {
            service: &POSTGRES,
            host,
            user: "worker",
            password: password.as_bytes(),
            requested: Requested::Tls,
        })
    }

    const OWN: &str = "kT7v";
    const COMPOSE: &str = "development-only";

    #[test]
    fn the_key_and_the_password_of_compose_are_refused_for_other_machines() {
        let (key, none) = (
            Published {
                key: true,
                ..Published::default()
            },
            Published::default(),
        );
        for here in ["127.0.0.1", "::1", "localhost", "/run/postgresql"] {
            assert!(judge(key, here, COMPOSE).is_ok(), "{here}");
        }
        for there in ["postgres", "db.example", "10.0.0.7", "2001:db8::1", ""] {
            let fault = judge(key, there, OWN).unwrap_err();
            assert!(
                matches!(fault, LinkFault::PublishedKey { .. })
                    && fault.to_string().contains("use k1:<32 bytes"),
                "{fault}"
            );
            let fault = judge(none, there, COMPOSE).unwrap_err();
            assert!(
                matches!(fault, LinkFault::DefaultPassword { .. })
                    && !fault.to_string().contains(COMPOSE),
                "{fault}"
            );
            assert!(judge(none, there, OWN).is_ok(), "{there}");
        }
    }

    #[test]
    fn development_applies_to_container_names_and_not_to_addresses_or_domain_names() {
        let development = Published {
            development: true,
            key: true,
        };
        for container in ["postgres", "rabbitmq", "my-db_2"] {
            assert!(
                judge(development, container, COMPOSE).is_ok(),
                "{container}"
            );
            assert!(
                judge(development, container, "guest").is_err(),
                "{container}"
            );
        }
        for there in [
            "db.example",
            "postgres.",
            "10.0.0.7",
            "2001:db8::1",
            "[2001:db8::1]",
            "167772161",
            "",
        ] {
            assert!(
                matches!(
                    judge(development, there, COMPOSE),
                    Err(LinkFault::DefaultPassword { .. })
                ),
                "{there}"
            );
            assert!(
                matches!(
                    judge(development, there, OWN),
                    Err(LinkFault::PublishedKey { .. })
                ),
                "{there}"
            );
        }
    }
}
