//! RabbitMQ. Only this module uses `lapin`. The driver's auto-recovery stays off: on any failure,
//! the connection is dropped as a whole and a supervisor connects again.

mod acks;
mod address;
mod consumer;
mod delivery;
mod headers;
mod posted;
mod publisher;
mod replies;
mod rights;
mod sanitize;
pub mod topology;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use lapin::{Connection, ConnectionProperties};

pub use consumer::{LaneInput, Link, QueueConsumer};
pub use delivery::Delivery;
pub use headers::producer_headers;
pub use posted::Posted;
pub use publisher::{Depth, Outgoing, Publisher, PublisherSupervisor, publisher};
pub use replies::{Replies, Reply};
pub use rights::missing_rights;
pub use sanitize::ByteBudget;

use crate::fault::{Class, Fault};
use crate::tls_policy::{Endpoint, LinkFault};
use address::Plan;
use sanitize::Inbound;

/// The exchange of jobs and control messages (direct), which producers publish to.
pub const EXCHANGE: &str = "dispatch";
/// The exchange of wake-ups and of dead letters that workers publish again (direct). Only workers
/// publish to it.
pub const WAKE: &str = "dispatch.wake";
/// The exchange of outcome events (topic).
pub const EVENTS: &str = "dispatch.events";
/// The dead-letter exchange of messages that the broker stops delivering (fanout).
pub const DEAD: &str = "dispatch.dead";
/// The intake queue. Wake-ups have queues of their own, so that they do not wait behind a long
/// intake queue.
pub const INTAKE_QUEUE: &str = "dispatch.jobs";
/// The queue of `configure` and `cancel`, which neither a long intake queue nor a full backlog
/// stops.
pub const CONTROL_QUEUE: &str = "dispatch.control";
/// The queue behind [`DEAD`].
pub const PARKED_QUEUE: &str = "dispatch.parked";
/// The routing key of a job.
pub const KEY_JOB: &str = "job";
/// The routing key of `configure`.
pub const KEY_CONFIGURE: &str = "configure";
/// The routing key of `cancel`.
pub const KEY_CANCEL: &str = "cancel";

/// The connect timeout for a single host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The connect timeout per host for several hosts, shorter so that the next one is tried soon.
const CONNECT_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(2);
/// The time within which the broker must answer a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A failure between the worker and RabbitMQ.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error(
        "the RabbitMQ URL cannot be parsed; use amqps://user:password@host:port/vhost (amqp:// on this machine), with \
         host:port,host:port for a cluster"
    )]
    Url,
    /// The TLS policy does not permit the connection.
    #[error("the connection to RabbitMQ is not permitted")]
    Refused(#[from] LinkFault),
    /// The connection or a channel failed.
    #[error("RabbitMQ")]
    Link(#[from] lapin::Error),
    /// Connecting to each of several hosts failed.
    #[error("cannot connect to any RabbitMQ host: {0}")]
    NoHost(String),
    #[error("RabbitMQ did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("there is no connection to RabbitMQ")]
    NotConnected,
    /// The broker has an alarm and does not read from publishers.
    #[error(
        "RabbitMQ accepts no messages: it has a memory or disk alarm; see `rabbitmq-diagnostics alarms`"
    )]
    Blocked,
    /// The broker received the message and refused it.
    #[error("RabbitMQ refused the message (nack): a queue is full or unavailable")]
    Nacked,
    #[error("no queue is bound for the message: {0}; run `dispatch topology declare`")]
    Returned(String),
    /// The channel is not in confirm mode, which is a defect.
    #[error("the channel is not in confirm mode")]
    NotConfirming,
    #[error("{0:?} is longer than 255 bytes")]
    LongName(String),
    /// The topology differs from what the worker needs.
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
            Self::NoHost(_) => "broker.no_host",
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
            Self::Link(_)
            | Self::NoHost(_)
            | Self::TimedOut(_)
            | Self::NotConnected
            | Self::Blocked
            | Self::Nacked
            | Self::Returned(_) => Class::Infrastructure,
            Self::Url
            | Self::Refused(_)
            | Self::NotConfirming
            | Self::LongName(_)
            | Self::Topology(_) => Class::Permanent,
        }
    }

    fn hint(&self) -> String {
        "Check RabbitMQ's log and alarms, and run `dispatch topology check`.".to_owned()
    }
}

/// Returns the virtual host that a URL names.
///
/// # Errors
/// As [`checked`].
pub fn vhost_of(endpoint: &Endpoint) -> Result<String, BrokerError> {
    Ok(Plan::of(endpoint)?.vhost().to_owned())
}

/// Returns the user that a URL names.
///
/// # Errors
/// As [`checked`].
pub fn user_of(endpoint: &Endpoint) -> Result<String, BrokerError> {
    Ok(Plan::of(endpoint)?.user().to_owned())
}

/// Returns whether a host of the endpoint is on another machine and is reached without encryption.
#[must_use]
pub fn is_plain_elsewhere(endpoint: &Endpoint) -> bool {
    Plan::of(endpoint).is_ok_and(|plan| plan.is_plain_elsewhere())
}

/// Returns `endpoint` if connecting to each of its hosts is permitted.
///
/// # Errors
/// [`BrokerError::Url`], [`BrokerError::Refused`].
pub fn checked(endpoint: Endpoint) -> Result<Endpoint, BrokerError> {
    Plan::of(&endpoint)?;
    Ok(endpoint)
}

/// Connects once, within a time limit, to one of the endpoint's hosts: a random one, or else the
/// next that accepts the connection. RabbitMQ's management UI shows `name`.
async fn connect(endpoint: &Endpoint, name: &str) -> Result<Connection, BrokerError> {
    connect_inbound(endpoint, name, None).await
}

/// As [`connect`]. With `inbound`, the connection receives deliveries.
async fn connect_inbound(
    endpoint: &Endpoint,
    name: &str,
    inbound: Option<Arc<Inbound>>,
) -> Result<Connection, BrokerError> {
    let Plan { mut hosts, tls } = Plan::of(endpoint)?;
    let limit = if hosts.len() > 1 {
        CONNECT_TIMEOUT_OF_SEVERAL
    } else {
        CONNECT_TIMEOUT
    };
    let first = rand::random_range(..hosts.len());
    hosts.rotate_left(first);
    let mut errors = Vec::new();
    for uri in hosts {
        let at = address::name(&uri);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        match within(
            limit,
            transport::connect(uri, tls.clone(), properties, inbound.clone()),
        )
        .await
        {
            Ok(connection) => return Ok(connection),
            Err(error) => errors.push((at, error)),
        }
    }
    match errors.len() {
        1 => Err(errors.swap_remove(0).1),
        _ => {
            let each: Vec<String> = errors
                .iter()
                .map(|(at, error)| format!("{at}: {}", crate::fault::chain(error)))
                .collect();
            Err(BrokerError::NoHost(each.join("; ")))
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(BrokerError::TimedOut(limit)),
    }
}
