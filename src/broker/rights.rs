//! Checks the permissions of a worker's user in RabbitMQ without using them.
//!
//! Each call has an argument that RabbitMQ rejects after it has checked the permission for the
//! call (<https://www.rabbitmq.com/docs/access-control#authorisation>), so no message is published
//! or consumed and no consumer is added.

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ErrorKind};

use super::{
    BrokerError, CALL_TIMEOUT, CONTROL_QUEUE, EVENTS, INTAKE_QUEUE, PARKED_QUEUE, WAKE, connect,
    topology, within,
};
use crate::engine::Lane;
use crate::tls_policy::Endpoint;

/// The exchanges that workers publish to. The default exchange, used for `reply_to`, has the name
/// `amq.default` in permissions.
const WRITTEN: [(&str, &str); 3] = [(WAKE, WAKE), (EVENTS, EVENTS), ("", "amq.default")];
/// A routing key that no queue is bound with, and that is not the name of a queue.
const UNBOUND: &str = "dispatch.check";

/// Returns the permissions that a worker needs and this user lacks, one line per kind.
/// [`topology::missing`] reports queues and exchanges that do not exist.
///
/// # Errors
/// [`BrokerError`] if the broker cannot be reached.
pub async fn missing_rights(
    endpoint: impl Into<Endpoint>,
    lanes: &[Lane],
) -> Result<Vec<String>, BrokerError> {
    let connection = connect(&endpoint.into(), "dispatch check").await?;
    let (mut unread, mut unwritten) = (Vec::new(), Vec::new());
    for queue in
        lanes
            .iter()
            .map(|lane| lane.queue)
            .chain([INTAKE_QUEUE, CONTROL_QUEUE, PARKED_QUEUE])
    {
        if !allowed(consume(&channel(&connection).await?, queue).await)? {
            unread.push(queue);
        }
    }
    for (exchange, name) in WRITTEN {
        if !allowed(publish(&channel(&connection).await?, exchange).await)? {
            unwritten.push(name);
        }
    }
    topology::close(connection).await;
    let lines = [("read", unread), ("write", unwritten)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty());
    Ok(lines
        .map(|(right, names)| format!("{right}: {}", names.join(", ")))
        .collect())
}

/// Opens a channel for one call, because the broker closes the channel of each call that it
/// rejects.
async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    within(CALL_TIMEOUT, connection.create_channel()).await
}

/// Consumes with a priority that is not a number. A broker that accepted it would deliver at most
/// one message, and get it back when the channel closes.
async fn consume(channel: &Channel, queue: &str) -> Result<(), BrokerError> {
    within(
        CALL_TIMEOUT,
        channel.basic_qos(1, BasicQosOptions::default()),
    )
    .await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let consuming = channel.basic_consume(
        queue.into(),
        "".into(),
        BasicConsumeOptions::default(),
        arguments,
    );
    within(CALL_TIMEOUT, consuming).await.map(drop)
}

/// Publishes with an expiration that is not a number.
async fn publish(channel: &Channel, exchange: &str) -> Result<(), BrokerError> {
    within(
        CALL_TIMEOUT,
        channel.confirm_select(ConfirmSelectOptions::default()),
    )
    .await?;
    let properties = BasicProperties::default().with_expiration("none".into());
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let publishing = async {
        channel
            .basic_publish(exchange.into(), UNBOUND.into(), options, b"", properties)
            .await?
            .await
    };
    within(CALL_TIMEOUT, publishing).await.map(drop)
}

/// Returns whether the call was rejected for a reason other than a missing permission.
fn allowed(answer: Result<(), BrokerError>) -> Result<bool, BrokerError> {
    let Err(error) = answer else { return Ok(true) };
    match soft_error(&error) {
        Some(AMQPSoftError::ACCESSREFUSED) => Ok(false),
        Some(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::NOTFOUND) => Ok(true),
        Some(_) | None => Err(error),
    }
}

/// Returns whether the user lacks the permission for the call.
pub(super) fn is_access_refused(error: &BrokerError) -> bool {
    matches!(soft_error(error), Some(AMQPSoftError::ACCESSREFUSED))
}

fn soft_error(error: &BrokerError) -> Option<AMQPSoftError> {
    let BrokerError::Link(link) = error else {
        return None;
    };
    let ErrorKind::ProtocolError(refusal) = link.kind() else {
        return None;
    };
    match refusal.kind() {
        AMQPErrorKind::Soft(soft) => Some(soft.clone()),
        AMQPErrorKind::Hard(_) => None,
    }
}
