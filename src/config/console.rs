//! Settings of the console.

use std::net::{IpAddr, SocketAddr};

use clap::{Args, ValueEnum as _};
use secrecy::SecretString;

use super::{host_name, secret};

/// Settings of the console.
#[derive(Debug, Clone, Args)]
pub struct ConsoleSettings {
    /// Address of the console and its API; another address than loopback requires
    /// --console-behind-proxy
    #[arg(
        long,
        env = "DISPATCH_CONSOLE_LISTEN",
        default_value = "127.0.0.1:9465",
        value_name = "ADDRESS"
    )]
    pub console_listen: SocketAddr,
    /// Additional comma-separated host names (`Host` without the port) that the console accepts,
    /// for a proxy in front of it
    #[arg(long, env = "DISPATCH_CONSOLE_HOSTS", value_delimiter = ',', value_parser = host_name, value_name = "NAMES")]
    pub console_hosts: Vec<String>,
    /// A proxy in front of the console ends TLS: cookies are sent over https only, and the console
    /// may listen on another address than loopback
    #[arg(long, env = "DISPATCH_CONSOLE_BEHIND_PROXY", action = clap::ArgAction::SetTrue)]
    pub console_behind_proxy: bool,
    /// Header in which a proxy names the user who has signed in there, such as `X-Forwarded-User`;
    /// requires the secret and the peers of the proxy
    #[arg(long, env = "DISPATCH_CONSOLE_PROXY_USER_HEADER", value_parser = user_header, value_name = "NAME")]
    pub console_proxy_user_header: Option<String>,
    /// Secret of 32 characters or more that the proxy sends in `X-Dispatch-Proxy-Secret`
    #[arg(long, env = "DISPATCH_CONSOLE_PROXY_SECRET", hide_env_values = true, value_parser = secret, value_name = "SECRET")]
    pub console_proxy_secret: Option<SecretString>,
    /// Comma-separated addresses or networks from which the proxy connects, such as
    /// `127.0.0.1,10.1.0.0/16`
    #[arg(long, env = "DISPATCH_CONSOLE_PROXY_PEERS", value_delimiter = ',', value_parser = network, value_name = "ADDRESSES")]
    pub console_proxy_peers: Vec<(IpAddr, u8)>,
    /// Comma-separated roles of users of the proxy, such as
    /// `olga@example.org=admin,ann@example.org=operator`; other users are viewers
    #[arg(long, env = "DISPATCH_CONSOLE_PROXY_ROLES", value_delimiter = ',', value_parser = user_role, value_name = "USER=ROLE")]
    pub console_proxy_roles: Vec<(String, PersonRole)>,
}

/// The role of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PersonRole {
    /// Read.
    Viewer,
    /// Act on jobs, holds, campaigns and dead letters.
    Operator,
    /// Everything.
    Admin,
}

/// Only headers that have no meaning of their own can name a user.
fn user_header(text: &str) -> Result<String, &'static str> {
    let name = text.to_ascii_lowercase();
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let is_own = name.starts_with("x-") || name.starts_with("remote-");
    if is_plain && is_own && name != "x-dispatch-proxy-secret" {
        Ok(name)
    } else {
        Err(
            "expected the name of a header that begins with `X-` or `Remote-`; use X-Forwarded-User for example",
        )
    }
}

fn network(text: &str) -> Result<(IpAddr, u8), &'static str> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: Option<IpAddr> = address.parse().ok();
    let longest = if address.is_some_and(|address| address.is_ipv6()) {
        128
    } else {
        32
    };
    let bits: Option<u8> = bits.map_or(Some(longest), |bits| bits.parse().ok());
    match (address, bits) {
        // A network of all addresses would be no list.
        (Some(address), Some(bits)) if (8..=longest).contains(&bits) => Ok((address, bits)),
        _ => Err(
            "expected addresses, or networks of at least 8 bits; use 127.0.0.1,10.1.0.0/16 for example",
        ),
    }
}

fn user_role(text: &str) -> Result<(String, PersonRole), &'static str> {
    let (user, role) = text.rsplit_once('=').unwrap_or_default();
    match PersonRole::from_str(role, false) {
        Ok(role) if !user.is_empty() => Ok((user.to_owned(), role)),
        _ => Err(
            "expected USER=viewer, USER=operator or USER=admin; use olga@example.org=admin for example",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_header_has_no_meaning_of_its_own() {
        assert_eq!(
            user_header("X-Forwarded-User"),
            Ok("x-forwarded-user".to_owned())
        );
        for wrong in [
            "",
            "Cookie",
            "authorization",
            "X-Dispatch-Proxy-Secret",
            "x-a b",
        ] {
            assert!(user_header(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_peer_is_an_address_or_a_network() {
        assert_eq!(network("127.0.0.1"), Ok(([127, 0, 0, 1].into(), 32)));
        assert_eq!(network("10.1.0.0/16"), Ok(([10, 1, 0, 0].into(), 16)));
        assert_eq!(network("fd00::/8").map(|(_, bits)| bits), Ok(8));
        for wrong in ["", "proxy", "0.0.0.0/0", "10.0.0.0/33", "10.0.0.0/", "::/0"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_user_has_one_of_three_roles() {
        assert_eq!(
            user_role("olga=admin"),
            Ok(("olga".to_owned(), PersonRole::Admin))
        );
        for wrong in ["", "olga", "=admin", "olga=producer", "olga="] {
            assert!(user_role(wrong).is_err(), "{wrong}");
        }
    }
}
