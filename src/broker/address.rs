//! The addresses of RabbitMQ: one URL per host, with the common parts of the setting, and the TLS
//! configuration.

use std::net::Ipv6Addr;
use std::sync::Arc;

use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri};
use tokio_rustls::TlsConnector;

use super::BrokerError;
use crate::tls_policy::{Encryption, Endpoint, Peer, RABBITMQ, Requested, is_this_machine};

const HEARTBEAT_SECONDS: u16 = 5;
/// The largest frame, a quarter of RabbitMQ's default. A content header is a single frame of any
/// size; a large one is truncated before the driver reads it.
const FRAME_BYTES: u32 = 32 << 10;

/// The hosts to connect to, and the TLS configuration.
pub(super) struct Plan {
    /// At least one host. They differ only in host and port.
    pub(super) hosts: Vec<AMQPUri>,
    pub(super) tls: Option<TlsConnector>,
}

impl Plan {
    /// # Errors
    /// [`BrokerError::Url`]; [`BrokerError::Refused`] if a connection to one of the hosts is not
    /// permitted.
    pub(super) fn of(endpoint: &Endpoint) -> Result<Self, BrokerError> {
        let hosts = hosts(endpoint.url()).ok_or(BrokerError::Url)?;
        let mut is_encrypted = false;
        for uri in &hosts {
            let requested = match uri.scheme {
                AMQPScheme::AMQP => Requested::Plaintext,
                AMQPScheme::AMQPS => Requested::Tls,
            };
            let AMQPAuthority { userinfo, host, .. } = &uri.authority;
            let (user, password) = (userinfo.username.as_str(), userinfo.password.as_bytes());
            let judged = endpoint.judge(&Peer {
                service: &RABBITMQ,
                host,
                user,
                password,
                requested,
            })?;
            is_encrypted |= judged == Encryption::Tls;
        }
        let tls = if is_encrypted {
            Some(TlsConnector::from(Arc::new(endpoint.tls(&RABBITMQ)?)))
        } else {
            None
        };
        Ok(Self { hosts, tls })
    }

    /// Returns the virtual host, which is the same for every host.
    pub(super) fn vhost(&self) -> &str {
        self.hosts.first().map_or("", |uri| &uri.vhost)
    }

    /// Returns the user, which is the same for every host.
    pub(super) fn user(&self) -> &str {
        self.hosts
            .first()
            .map_or("", |uri| &uri.authority.userinfo.username)
    }

    /// Returns whether traffic to another machine is unencrypted.
    pub(super) fn is_plain_elsewhere(&self) -> bool {
        self.tls.is_none()
            && self
                .hosts
                .iter()
                .any(|uri| !is_this_machine(&uri.authority.host))
    }
}

/// Returns the host and port for error texts.
pub(super) fn name(uri: &AMQPUri) -> String {
    let AMQPAuthority { host, port, .. } = &uri.authority;
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Returns a URL for each host of `scheme://user:password@host:port,host:port/vhost?query`, or
/// `None` if one is invalid.
fn hosts(url: &str) -> Option<Vec<AMQPUri>> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (user, hosts) = authority
        .rfind('@')
        .map_or(("", authority), |at| authority.split_at(at + 1));
    let several = hosts.contains(',');
    let uri = |host: &str| {
        // A single URL without a host means this machine; in a list, an empty host is a mistake.
        if several && (host.is_empty() || host.starts_with(':')) {
            return None;
        }
        let mut uri: AMQPUri = format!("{scheme}://{user}{host}{tail}").parse().ok()?;
        // The driver's parser supports names and IPv4 addresses, and reads an IPv6 address as
        // `localhost`.
        if let Some(literal) = ipv6_literal(host) {
            uri.authority.host = literal;
        }
        // Heartbeats detect a half-open connection. A value in the URL takes precedence.
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        // The driver reserves 64 frames per connection, of whatever size the server allows.
        uri.query.frame_max.get_or_insert(FRAME_BYTES);
        Some(uri)
    };
    hosts.split(',').map(uri).collect()
}

fn ipv6_literal(host: &str) -> Option<String> {
    let literal = host.strip_prefix('[')?.split(']').next()?;
    literal
        .parse::<Ipv6Addr>()
        .ok()
        .map(|address| address.to_string())
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::fault::{Class, Fault};

    fn plan(url: &str) -> Result<Plan, BrokerError> {
        Plan::of(&SecretString::from(url).into())
    }

    #[test]
    fn a_broker_elsewhere_is_spoken_to_over_tls_only_and_with_a_user_of_ones_own() {
        for (url, part) in [
            ("amqp://u:canary@rabbitmq:5672/", "use amqps://"),
            ("amqp://u:canary@localhost.example/", "use amqps://"),
            ("amqp://127.0.0.1:canary@other.example", "use amqps://"),
            ("amqp://u:canary@[2001:db8::1]:5672/x", "2001:db8::1"),
            ("amqps://guest:canary@rabbitmq/", "default user"),
            ("amqps://rabbitmq/", "default user"),
            // Each host of a list is checked.
            (
                "amqp://u:canary@localhost,127.0.0.1:5673,mq-3:5672/x",
                "mq-3",
            ),
            ("amqp://u:canary@[::1]:5672,[2001:db8::1]/x", "2001:db8::1"),
            ("amqps://guest:canary@localhost,mq-2/x", "mq-2"),
        ] {
            let error = plan(url).err().unwrap();
            assert_eq!(error.class(), Class::Permanent);
            let text = crate::fault::chain(&error);
            assert!(
                text.contains(part) && !text.contains("canary"),
                "{url}: {text}"
            );
        }
        for url in [
            "amqp://guest:guest@127.0.0.1/%2f",
            "amqp://localhost",
            "amqp://",
            "amqp://u:p@[::1]:5672/x",
            "amqps://u:canary@rabbitmq/",
            "amqps://u:canary@mq-1,mq-2:5671,[2001:db8::1]:5671/x",
        ] {
            assert!(plan(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_wrong_url_is_reported_with_what_to_use() {
        for url in [
            "http://u:canary@127.0.0.1/",
            "amqp:canary",
            "canary",
            "amqp://u:canary@localhost,/x",
            "amqp://u:canary@,localhost/x",
            "amqp://u:canary@localhost,:5673/x",
            "amqp://u:canary@localhost:5672,localhost:port/x",
            "amqp://u:canary@localhost,127.0.0.1:99999/x",
            "amqp://u:canary@[::1,localhost/x",
            "amqp://u:canary@localhost,local host/x",
        ] {
            let error = plan(url).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(matches!(error, BrokerError::Url), "{url}: {error:?}");
            let text = crate::fault::chain(&error);
            assert!(
                text.contains("use amqps://")
                    && text.contains("host:port,host:port")
                    && !text.contains("canary"),
                "{text}"
            );
        }
    }

    #[test]
    fn hosts_differ_in_nothing_but_host_and_port() {
        let plan =
            plan("amqp://us%2Cer:p%40ss@127.0.0.1,[::1]:5673,localhost:5674/x%2fy?heartbeat=30")
                .unwrap();
        let names: Vec<String> = plan.hosts.iter().map(name).collect();
        assert_eq!(names, ["127.0.0.1:5672", "[::1]:5673", "localhost:5674"]);
        for uri in &plan.hosts {
            let user = &uri.authority.userinfo;
            assert_eq!(
                (user.username.as_str(), user.password.as_str()),
                ("us,er", "p@ss")
            );
            assert_eq!((uri.vhost.as_str(), uri.query.heartbeat), ("x/y", Some(30)));
        }
        assert!(plan.vhost() == "x/y" && plan.tls.is_none() && !plan.is_plain_elsewhere());
    }

    #[test]
    fn heartbeats_are_asked_for_and_ports_are_those_of_the_scheme() {
        let one = plan("amqp://u:p@[::1]:5673/x").unwrap();
        let AMQPUri {
            authority, query, ..
        } = &one.hosts[0];
        assert_eq!((authority.host.as_str(), authority.port), ("::1", 5673));
        assert_eq!(
            (query.heartbeat, one.tls.is_none()),
            (Some(HEARTBEAT_SECONDS), true)
        );
        assert_eq!(query.frame_max, Some(FRAME_BYTES));
        let several = plan("amqps://u:canary@b.example,c.example/x").unwrap();
        assert_eq!(
            several.hosts.iter().map(name).collect::<Vec<_>>(),
            ["b.example:5671", "c.example:5671"]
        );
        assert!(several.tls.is_some() && !several.is_plain_elsewhere());
        let loud = Endpoint::new("amqp://u:own@127.0.0.1,b.example/x".into(), None, true);
        assert!(
            Plan::of(&loud).unwrap().is_plain_elsewhere(),
            "one of two is elsewhere"
        );
    }
}
