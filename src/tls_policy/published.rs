//! What everybody knows: default users and passwords, and the password and the key of docker-compose.yml. They are for servers on
//! this machine.
//!
//! The containers of docker-compose.yml are on one machine, but see each other under names of their own. DISPATCH_DEVELOPMENT says
//! that this is so; it is believed for names without a dot, which only such a network knows, and never for an address or a
//! domain's name.

use std::sync::Once;

use super::{LinkFault, Peer, is_this_machine};

/// What the settings have of it. By default: nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Published {
    /// DISPATCH_DEVELOPMENT: servers under names without a dot count as this machine.
    pub development: bool,
    /// DISPATCH_KEYRING seals with the key of docker-compose.yml.
    pub key: bool,
}

static WARNED: Once = Once::new();

impl Published {
    /// # Errors
    /// [`LinkFault::DefaultPassword`], [`LinkFault::PublishedKey`] where the server is on another machine.
    pub(super) fn judge(self, peer: &Peer<'_>) -> Result<(), LinkFault> {
        if self.development {
            WARNED.call_once(|| {
                tracing::warn!(
                    "DEVELOPMENT: a key and passwords that everybody knows are accepted for servers under names without a dot, as \
                     DISPATCH_DEVELOPMENT allows; do not set it where data matter"
                );
            });
        }
        let (service, host) = (peer.service.name, peer.host);
        if is_this_machine(host) {
            return Ok(());
        }
        let is_development = self.development && is_container_name(host);
        if has_default_password(peer) || (peer.password == COMPOSE_PASSWORD && !is_development) {
            return Err(LinkFault::DefaultPassword { service, host: host.to_owned() });
        }
        if self.key && !is_development {
            return Err(LinkFault::PublishedKey { service, host: host.to_owned() });
        }
        Ok(())
    }
}

/// Of a network of containers, as `postgres`: neither an address nor a name of the domain name system.
fn is_container_name(host: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    host.starts_with(|c: char| c.is_ascii_alphabetic()) && host.chars().all(is_plain)
}

/// A user whom every installation has, or a password that everybody tries first.
fn has_default_password(peer: &Peer<'_>) -> bool {
    let password = peer.password.to_ascii_lowercase();
    let is_known = DEFAULT_PASSWORDS.iter().any(|known| known.as_bytes() == password);
    let is_the_user = !password.is_empty() && password == peer.user.to_ascii_lowercase().as_bytes();
    peer.user == "guest" || is_known || is_the_user
}

/// Of docker-compose.yml.
const COMPOSE_PASSWORD: &[u8] = b"development-only";

/// Of servers, their images, and their manuals' examples.
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
    use crate::tls_policy::{POSTGRES, Wish};

    fn judge(published: Published, host: &str, password: &str) -> Result<(), LinkFault> {
        published.judge(&Peer { service: &POSTGRES, host, user: "worker", password: password.as_bytes(), wish: Wish::Tls })
    }

    const OWN: &str = "kT7v";
    const COMPOSE: &str = "development-only";

    #[test]
    fn the_key_and_the_password_of_compose_are_refused_away_from_this_machine() {
        let (key, none) = (Published { key: true, ..Published::default() }, Published::default());
        for here in ["127.0.0.1", "::1", "localhost", "/run/postgresql"] {
            assert!(judge(key, here, COMPOSE).is_ok(), "{here}");
        }
        for there in ["postgres", "db.example", "10.0.0.7", "2001:db8::1", ""] {
            let fault = judge(key, there, OWN).unwrap_err();
            assert!(matches!(fault, LinkFault::PublishedKey { .. }) && fault.to_string().contains("use k1:<32 bytes"), "{fault}");
            let fault = judge(none, there, COMPOSE).unwrap_err();
            assert!(matches!(fault, LinkFault::DefaultPassword { .. }) && !fault.to_string().contains(COMPOSE), "{fault}");
            assert!(judge(none, there, OWN).is_ok(), "{there}");
        }
    }

    #[test]
    fn development_is_believed_for_a_container_s_name_and_for_nothing_that_others_can_reach() {
        let development = Published { development: true, key: true };
        for container in ["postgres", "rabbitmq", "my-db_2"] {
            assert!(judge(development, container, COMPOSE).is_ok(), "{container}");
            assert!(judge(development, container, "guest").is_err(), "{container}");
        }
        for there in ["db.example", "postgres.", "10.0.0.7", "2001:db8::1", "[2001:db8::1]", "167772161", ""] {
            assert!(matches!(judge(development, there, COMPOSE), Err(LinkFault::DefaultPassword { .. })), "{there}");
            assert!(matches!(judge(development, there, OWN), Err(LinkFault::PublishedKey { .. })), "{there}");
        }
    }
}
