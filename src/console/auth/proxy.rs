//! Signing in through a proxy: it names the user in a header. The header counts only if the request
//! comes from a listed address and has the secret that the console and the proxy share; nobody else
//! can name a user.

use std::collections::HashMap;
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};
use data_encoding::BASE64URL_NOPAD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

use super::session::Session;
use crate::secrets::Keyring;
use crate::store::{ApiToken, Role};

/// The header with the shared secret.
const SECRET: HeaderName = HeaderName::from_static("x-dispatch-proxy-secret");
/// The longest name of a user, in bytes.
const NAME: usize = 200;

/// A proxy that signs people in.
#[derive(Debug, Clone)]
pub struct SigningProxy {
    /// The header that names the user.
    pub user_header: HeaderName,
    /// The shared secret.
    pub secret: SecretString,
    /// The networks of its addresses: the address, and the number of its bits that count.
    pub peers: Vec<(IpAddr, u8)>,
    /// The roles of users. Others are viewers.
    pub roles: HashMap<String, Role>,
}

/// A user whom the proxy names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::console) struct ProxiedUser {
    pub(in crate::console) name: String,
    pub(in crate::console) role: Role,
}

impl SigningProxy {
    /// Returns the user whom the proxy names, and removes the headers that only the proxy may send.
    pub(super) fn take_user(
        &self,
        peer: Option<IpAddr>,
        headers: &mut HeaderMap,
    ) -> Option<ProxiedUser> {
        let user = self.user(peer, headers);
        headers.remove(&SECRET);
        headers.remove(&self.user_header);
        user
    }

    fn user(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<ProxiedUser> {
        let is_listed = |peer: IpAddr| self.peers.iter().any(|network| is_within(*network, peer));
        if !peer.is_some_and(is_listed) || !self.has_secret(headers) {
            return None;
        }
        let name = only(headers, &self.user_header)?.trim();
        if name.is_empty() || name.len() > NAME {
            return None;
        }
        let role = self.roles.get(name).copied().unwrap_or(Role::Viewer);
        Some(ProxiedUser {
            name: name.to_owned(),
            role,
        })
    }

    /// Compares digests, so that the time says nothing about the secret or its length.
    fn has_secret(&self, headers: &HeaderMap) -> bool {
        let Some(got) = only(headers, &SECRET) else {
            return false;
        };
        let expected = Sha256::digest(self.secret.expose_secret().as_bytes());
        expected
            .as_slice()
            .ct_eq(Sha256::digest(got.as_bytes()).as_slice())
            .into()
    }
}

/// Returns the value of a header that a request has exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn is_within((network, bits): (IpAddr, u8), address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let bits = u32::from(bits.min(32));
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= bits
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let bits = u32::from(bits.min(128));
            (network.to_bits() ^ address.to_bits()).leading_zeros() >= bits
        }
        _ => false,
    }
}

impl ProxiedUser {
    /// Returns the session of this user. The proxy keeps it, so it needs no cookie; its forms have a
    /// token that no other site can know.
    pub(in crate::console) fn session(&self, keyring: &Keyring) -> Session {
        let form = keyring.keyed_hash(&format!("forms of user {}", self.name));
        let form = BASE64URL_NOPAD.encode(&form[..16]);
        Session::through_proxy(self.number(keyring), form, OffsetDateTime::now_utc())
    }

    /// Returns the number that stands for the user's token: below zero, where no token has one.
    fn number(&self, keyring: &Keyring) -> i64 {
        let [a, b, c, d, e, f, g, h, ..] = keyring.keyed_hash(&format!("user {}", self.name));
        i64::from_be_bytes([a, b, c, d, e, f, g, h]) | i64::MIN
    }

    /// Returns what stands for a token of this user.
    pub(super) fn as_token(&self, keyring: &Keyring) -> ApiToken {
        let now = OffsetDateTime::now_utc();
        ApiToken {
            id: self.number(keyring),
            name: self.name.clone(),
            role: self.role,
            source: None,
            organizations: None,
            created_by: "proxy".to_owned(),
            created_at: now,
            expires_at: now,
            revoked_at: None,
            last_used_at: None,
            was_used_lately: true,
            is_valid: true,
        }
    }
}

/// Returns the name of a token for the audit log; `proxy` for a user of the proxy.
pub(in crate::console) fn credential(token: &ApiToken) -> &str {
    if token.id < 0 { "proxy" } else { &token.name }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "0123456789abcdef0123456789abcdef";

    fn proxy() -> SigningProxy {
        SigningProxy {
            user_header: HeaderName::from_static("x-forwarded-user"),
            secret: SecretString::from(RIGHT),
            peers: vec![
                ("10.1.0.0".parse().unwrap(), 16),
                ("::1".parse().unwrap(), 128),
            ],
            roles: HashMap::from([("olga".to_owned(), Role::Admin)]),
        }
    }

    fn sent(peer: &str, sent: &[(&str, &str)]) -> (Option<ProxiedUser>, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        let peer: IpAddr = peer.parse().unwrap();
        (proxy().take_user(Some(peer), &mut headers), headers)
    }

    #[test]
    fn a_user_counts_from_a_listed_peer_with_the_secret_only() {
        let user = ("x-forwarded-user", "olga");
        let secret = ("x-dispatch-proxy-secret", RIGHT);
        for peer in ["10.1.200.3", "::1"] {
            let (found, _) = sent(peer, &[user, secret]);
            let found = found.unwrap();
            assert_eq!((found.name.as_str(), found.role), ("olga", Role::Admin));
        }
        let (other, _) = sent("10.1.0.1", &[(user.0, "ann@example.org"), secret]);
        assert_eq!(other.unwrap().role, Role::Viewer);

        let long = "x".repeat(NAME + 1);
        for (peer, headers) in [
            ("10.2.0.1", vec![user, secret]),
            ("::2", vec![user, secret]),
            ("10.1.0.1", vec![user]),
            ("10.1.0.1", vec![secret]),
            ("10.1.0.1", vec![user, (secret.0, "wrong")]),
            ("10.1.0.1", vec![user, (secret.0, "")]),
            ("10.1.0.1", vec![user, secret, secret]),
            ("10.1.0.1", vec![user, (user.0, "ann"), secret]),
            ("10.1.0.1", vec![(user.0, " "), secret]),
            ("10.1.0.1", vec![(user.0, &long), secret]),
        ] {
            let (found, left) = sent(peer, &headers);
            assert_eq!(found, None, "{peer} {headers:?}");
            assert!(left.is_empty(), "both are removed");
        }
    }

    #[test]
    fn a_user_has_a_number_that_no_token_has() {
        let keyring = Keyring::parse(&Keyring::fresh_setting()).unwrap();
        let of = |name: &str| {
            let user = ProxiedUser {
                name: name.to_owned(),
                role: Role::Viewer,
            };
            user.number(&keyring)
        };
        assert!(of("ann") < 0 && of("bob") < 0);
        assert_eq!(of("ann"), of("ann"));
        assert_ne!(of("ann"), of("bob"));
    }
}
