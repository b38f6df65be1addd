//! RabbitMQ: the only module that names `lapin`. Its auto-recovery stays off: any doubt drops a connection whole, and a
//! supervisor starts afresh.

mod acks;
mod consumer;
mod delivery;
mod headers;
mod legible;
mod posted;
mod publisher;
mod replies;
mod rights;
pub mod topology;
mod transport;

use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use lapin::uri::{AMQPAuthority, AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties};
use tokio_rustls::TlsConnector;

pub use consumer::{LaneInput, Link, QueueConsumer};
pub use delivery::Delivery;
pub use headers::producer_headers;
pub use posted::Posted;
pub use publisher::{Depth, Outgoing, Publisher, PublisherSupervisor, publisher};
pub use replies::{Replies, Reply};
pub use rights::missing_rights;

use crate::fault::{Class, Fault};
use crate::link::{Encryption, Endpoint, LinkFault, Peer, RABBITMQ, Wish, is_this_machine};

/// The exchange of jobs, control messages and wake-ups (direct).
pub const EXCHANGE: &str = "dispatch";
/// The exchange of outcome events (topic).
pub const EVENTS: &str = "dispatch.events";
/// Where the broker puts what it gives up delivering (fanout).
pub const DEAD: &str = "dispatch.dead";
/// The queue of intake and control messages. Wake-ups have queues of their own: they do not stand behind a long intake.
pub const INTAKE_QUEUE: &str = "dispatch.jobs";
/// The queue behind [`DEAD`].
pub const PARKED_QUEUE: &str = "dispatch.parked";
/// Intake.
pub const KEY_JOB: &str = "job";
/// Supplies an account.
pub const KEY_CONFIGURE: &str = "configure";
/// Cancels a job.
pub const KEY_CANCEL: &str = "cancel";
/// RabbitMQ's direct reply-to: what a requester names and consumes, and what the names begin with by which it is answered.
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const HEARTBEAT_SECONDS: u16 = 5;
/// A broker that takes longer than this to answer a call has lost it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What goes wrong between the worker and RabbitMQ.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL does not read.
    #[error("the RabbitMQ URL is not right; right is amqps://user:password@host:port/vhost (amqp:// on this machine)")]
    Url,
    /// The way to it is not taken.
    #[error("the link to RabbitMQ is not made")]
    Refused(#[from] LinkFault),
    /// The link.
    #[error("RabbitMQ")]
    Link(#[from] lapin::Error),
    /// No answer in time.
    #[error("RabbitMQ did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// There is no connection now.
    #[error("there is no connection to RabbitMQ")]
    NotConnected,
    /// The broker has an alarm and reads nothing.
    #[error("RabbitMQ takes no messages: it has a memory or disk alarm, see `rabbitmq-diagnostics alarms`")]
    Blocked,
    /// The broker took the message and refused it.
    #[error("RabbitMQ refused the message (nack): a queue is full or ill")]
    Nacked,
    /// No queue is bound for it.
    #[error("no queue takes the message: {0}; run `dispatch topology declare`")]
    Returned(String),
    /// Confirms are off: a defect.
    #[error("the channel does not confirm")]
    NotConfirming,
    /// A name that AMQP cannot carry.
    #[error("{0:?} is longer than 255 bytes")]
    LongName(String),
    /// The topology is not what the worker needs.
    #[error("the topology differs: {0}; run `dispatch topology check`")]
    Topology(String),
}

#[deny(clippy::wildcard_enum_match_arm)]
impl Fault for BrokerError {
    fn code(&self) -> &'static str {
        match self {
            Self::Url => "broker.url",
            Self::Refused(_) => "broker.refused_link",
            Self::Link(_) => "broker.link",
            Self::TimedOut(_) => "broker.timed_out",
            Self::NotConnected => "broker.not_connected",
            Self::Blocked => "broker.blocked",
            Self::Nacked => "broker.nacked",
            Self::Returned(_) => "broker.returned",
            Self::NotConfirming => "broker.not_confirming",
            Self::LongName(_) => "broker.long_name",
            Self::Topology(_) => "broker.topology",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Link(_) | Self::TimedOut(_) | Self::NotConnected | Self::Blocked | Self::Nacked | Self::Returned(_) => {
                Class::Infrastructure
            }
            Self::Url | Self::Refused(_) | Self::NotConfirming | Self::LongName(_) | Self::Topology(_) => Class::Permanent,
        }
    }

    fn hint(&self) -> String {
        "Look at RabbitMQ: its log, its alarms, `dispatch topology check`.".to_owned()
    }
}

/// The virtual host that a URL names.
///
/// # Errors
/// [`BrokerError::Url`] where it does not read.
pub fn vhost_of(endpoint: &Endpoint) -> Result<String, BrokerError> {
    endpoint.url().parse::<AMQPUri>().map(|uri| uri.vhost).map_err(|_| BrokerError::Url)
}

/// Whether an endpoint is on another machine and is reached without encryption.
#[must_use]
pub fn is_plain_elsewhere(endpoint: &Endpoint) -> bool {
    plan(endpoint).is_ok_and(|(uri, tls)| tls.is_none() && !is_this_machine(&uri.authority.host))
}

/// `endpoint` itself, where connecting over it would not be refused.
///
/// # Errors
/// [`BrokerError::Url`], [`BrokerError::Refused`].
pub fn checked(endpoint: Endpoint) -> Result<Endpoint, BrokerError> {
    plan(&endpoint)?;
    Ok(endpoint)
}

/// Where to connect, and with what TLS.
fn plan(endpoint: &Endpoint) -> Result<(AMQPUri, Option<TlsConnector>), BrokerError> {
    let mut uri: AMQPUri = endpoint.url().parse().map_err(|_| BrokerError::Url)?;
    // The driver's parser knows names and IPv4 addresses, and takes an IPv6 one for `localhost`.
    if let Some(literal) = ipv6_literal(endpoint.url()) {
        uri.authority.host = literal;
    }
    // Heartbeats find a half-open connection; the setting wins where the URL has one.
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    let wish = match uri.scheme {
        AMQPScheme::AMQP => Wish::Plaintext,
        AMQPScheme::AMQPS => Wish::Tls,
    };
    let AMQPAuthority { userinfo, host, .. } = &uri.authority;
    let (user, password) = (userinfo.username.as_str(), userinfo.password.as_bytes());
    let tls = match endpoint.judge(&Peer { service: &RABBITMQ, host, user, password, wish })? {
        Encryption::Tls => Some(TlsConnector::from(Arc::new(endpoint.tls(&RABBITMQ)?))),
        Encryption::Plaintext => None,
    };
    Ok((uri, tls))
}

fn ipv6_literal(url: &str) -> Option<String> {
    let authority = url.split("://").nth(1)?.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.strip_prefix('[')?.split(']').next()?;
    host.parse::<Ipv6Addr>().ok().map(|address| address.to_string())
}

/// Connects once, within a bound; `name` is what RabbitMQ's management shows.
async fn connect(endpoint: &Endpoint, name: &str) -> Result<Connection, BrokerError> {
    let (uri, tls) = plan(endpoint)?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    within(CONNECT_TIMEOUT, transport::connect(uri, tls, properties)).await
}

async fn within<T>(limit: Duration, call: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(BrokerError::TimedOut(limit)),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn a_broker_elsewhere_is_spoken_to_over_tls_only_and_with_a_user_of_ones_own() {
        for (url, part) in [
            ("amqp://u:canary@rabbitmq:5672/", "right is amqps://"),
            ("amqp://u:canary@localhost.example/", "right is amqps://"),
            ("amqp://127.0.0.1:canary@other.example", "right is amqps://"),
            ("amqp://u:canary@[2001:db8::1]:5672/x", "2001:db8::1"),
            ("amqps://guest:canary@rabbitmq/", "default user"),
            ("amqps://rabbitmq/", "default user"),
            ("http://u:canary@127.0.0.1/", "right is amqp"),
            ("amqp:canary", "right is amqp"),
        ] {
            let error = checked(SecretString::from(url).into()).unwrap_err();
            assert_eq!(error.class(), Class::Permanent);
            let said = crate::fault::chain(&error);
            assert!(said.contains(part) && !said.contains("canary"), "{url}: {said}");
        }
        for url in
            ["amqp://guest:guest@127.0.0.1/%2f", "amqp://localhost", "amqp://u:p@[::1]:5672/x", "amqps://u:canary@rabbitmq/"]
        {
            checked(SecretString::from(url).into()).unwrap();
        }
    }

    #[test]
    fn heartbeats_are_asked_for_and_an_ipv6_address_is_the_host() {
        let (uri, tls) = plan(&SecretString::from("amqp://u:p@[::1]:5673/x").into()).unwrap();
        assert_eq!((uri.authority.host.as_str(), uri.authority.port, uri.vhost.as_str()), ("::1", 5673, "x"));
        assert_eq!((uri.query.heartbeat, tls.is_none()), (Some(HEARTBEAT_SECONDS), true));
        let (own, tls) = plan(&SecretString::from("amqps://u:canary@b.example/x?heartbeat=30").into()).unwrap();
        assert_eq!((own.query.heartbeat, tls.is_some()), (Some(30), true));
    }
}
