//! RabbitMQ: the only module that names `lapin`. Its auto-recovery stays off: any doubt drops a connection whole, and a
//! supervisor starts afresh.

mod consumer;
mod delivery;
mod headers;
mod publisher;
pub mod topology;

use std::sync::Once;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

pub use consumer::{LaneInput, Link, QueueConsumer};
pub use delivery::Delivery;
pub use headers::producer_headers;
pub use publisher::{Depth, Outgoing, Publisher, PublisherSupervisor, publisher};

use crate::fault::{Class, Fault};

/// The exchange of jobs, control messages and wake-ups (direct).
pub const EXCHANGE: &str = "dispatch";
/// The exchange of outcome events (topic).
pub const EVENTS: &str = "dispatch.events";
/// Where the broker puts what it gives up delivering (fanout).
pub const DEAD: &str = "dispatch.dead";
/// The queue behind [`DEAD`].
pub const PARKED_QUEUE: &str = "dispatch.parked";
/// Intake.
pub const KEY_JOB: &str = "job";
/// Supplies an account.
pub const KEY_CONFIGURE: &str = "configure";
/// Cancels a job.
pub const KEY_CANCEL: &str = "cancel";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A broker that takes longer than this to answer a call has lost it.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What goes wrong between the worker and RabbitMQ.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL does not read.
    #[error("the RabbitMQ URL is not right; right is amqp://user:password@host:port/vhost")]
    Url,
    /// The link.
    #[error("RabbitMQ")]
    Link(#[from] lapin::Error),
    /// No answer in time.
    #[error("RabbitMQ did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// There is no connection now.
    #[error("there is no connection to RabbitMQ")]
    NotConnected,
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
            Self::Link(_) => "broker.link",
            Self::TimedOut(_) => "broker.timed_out",
            Self::NotConnected => "broker.not_connected",
            Self::Nacked => "broker.nacked",
            Self::Returned(_) => "broker.returned",
            Self::NotConfirming => "broker.not_confirming",
            Self::LongName(_) => "broker.long_name",
            Self::Topology(_) => "broker.topology",
        }
    }

    fn class(&self) -> Class {
        match self {
            Self::Link(_) | Self::TimedOut(_) | Self::NotConnected | Self::Nacked | Self::Returned(_) => Class::Infrastructure,
            Self::Url | Self::NotConfirming | Self::LongName(_) | Self::Topology(_) => Class::Permanent,
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
pub fn vhost_of(url: &SecretString) -> Result<String, BrokerError> {
    url.expose_secret().parse::<lapin::uri::AMQPUri>().map(|uri| uri.vhost).map_err(|_| BrokerError::Url)
}

/// Whether a URL leads to another machine without encryption.
#[must_use]
pub fn is_plain_elsewhere(url: &SecretString) -> bool {
    url.expose_secret().starts_with("amqp://") && !is_loopback(url.expose_secret())
}

/// Connects once, within a bound; `name` is what RabbitMQ's management shows.
async fn connect(url: &SecretString, name: &str) -> Result<Connection, BrokerError> {
    let is_plain = is_plain_elsewhere(url);
    let url = url.expose_secret();
    if !(url.starts_with("amqp://") || url.starts_with("amqps://")) {
        return Err(BrokerError::Url);
    }
    if is_plain {
        static SAID: Once = Once::new();
        SAID.call_once(|| tracing::warn!("plaintext to a RabbitMQ that is not on this machine; amqps:// is encrypted"));
    }
    // Heartbeats find a half-open connection; the setting wins where the URL has one.
    let separator = if url.contains('?') { '&' } else { '?' };
    let url = if url.contains("heartbeat=") { url.to_owned() } else { format!("{url}{separator}heartbeat=5") };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    within(CONNECT_TIMEOUT, Connection::connect(&url, properties)).await
}

/// Whether a URL's host is this machine.
fn is_loopback(url: &str) -> bool {
    let authority = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|local| host == *local || host.starts_with(&format!("{local}:")))
}

async fn within<T>(limit: Duration, call: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(BrokerError::TimedOut(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_on_this_machine_is_told_from_others() {
        for local in ["amqp://u:p@127.0.0.1:5672/%2f", "amqp://localhost", "amqp://u:p@[::1]:5672/x?heartbeat=5"] {
            assert!(is_loopback(local), "{local}");
        }
        for other in ["amqp://u:p@rabbitmq:5672/", "amqp://localhost.example/", "amqp://127.0.0.1@evil.example"] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
