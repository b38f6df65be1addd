//! What a worker's user may do in RabbitMQ, found out without doing it.
//!
//! Each call has an argument that RabbitMQ refuses, after it has looked at the right to make the call
//! (<https://www.rabbitmq.com/docs/access-control#authorisation>): no message is published or taken, and no consumer is added.

use lapin::options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ErrorKind};

use super::{BrokerError, CALL_TIMEOUT, CONTROL_QUEUE, EVENTS, INTAKE_QUEUE, PARKED_QUEUE, WAKE, connect, topology, within};
use crate::engine::Lane;
use crate::tls_policy::Endpoint;

/// What workers publish to; the exchange without a name, which answers `reply_to`, has one where rights are given.
const WRITTEN: [(&str, &str); 3] = [(WAKE, WAKE), (EVENTS, EVENTS), ("", "amq.default")];
/// No queue is bound by it, and none has it as its name.
const UNBOUND: &str = "dispatch.check";

/// The rights that a worker needs and this user does not have, a line for each kind of right. What is not there at all is
/// [`topology::missing`]'s to tell.
///
/// # Errors
/// [`BrokerError`] where the broker cannot be reached.
pub async fn missing_rights(endpoint: impl Into<Endpoint>, lanes: &[Lane]) -> Result<Vec<String>, BrokerError> {
    let connection = connect(&endpoint.into(), "dispatch check").await?;
    let (mut unread, mut unwritten) = (Vec::new(), Vec::new());
    for queue in lanes.iter().map(|lane| lane.queue).chain([INTAKE_QUEUE, CONTROL_QUEUE, PARKED_QUEUE]) {
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
    let lines = [("read", unread), ("write", unwritten)].into_iter().filter(|(_, names)| !names.is_empty());
    Ok(lines.map(|(right, names)| format!("{right}: {}", names.join(", "))).collect())
}

/// The broker closes the channel of each call that it refuses.
async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    within(CALL_TIMEOUT, connection.create_channel()).await
}

/// A priority is a number. Would a broker take this one, it would hand out one message at most, and get it back with the channel.
async fn consume(channel: &Channel, queue: &str) -> Result<(), BrokerError> {
    within(CALL_TIMEOUT, channel.basic_qos(1, BasicQosOptions::default())).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("none".into()));
    let consuming = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments);
    within(CALL_TIMEOUT, consuming).await.map(drop)
}

/// An expiration is a number.
async fn publish(channel: &Channel, exchange: &str) -> Result<(), BrokerError> {
    within(CALL_TIMEOUT, channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let properties = BasicProperties::default().with_expiration("none".into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publishing = async { channel.basic_publish(exchange.into(), UNBOUND.into(), options, b"", properties).await?.await };
    within(CALL_TIMEOUT, publishing).await.map(drop)
}

/// Whether what a call was refused for is something else than the right to make it.
fn allowed(answer: Result<(), BrokerError>) -> Result<bool, BrokerError> {
    let Err(error) = answer else { return Ok(true) };
    match soft_error(&error) {
        Some(AMQPSoftError::ACCESSREFUSED) => Ok(false),
        Some(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::NOTFOUND) => Ok(true),
        Some(_) | None => Err(error),
    }
}

/// Whether the user lacks the right to make the call.
pub(super) fn is_access_refused(error: &BrokerError) -> bool {
    matches!(soft_error(error), Some(AMQPSoftError::ACCESSREFUSED))
}

fn soft_error(error: &BrokerError) -> Option<AMQPSoftError> {
    let BrokerError::Link(link) = error else { return None };
    let ErrorKind::ProtocolError(refusal) = link.kind() else { return None };
    match refusal.kind() {
        AMQPErrorKind::Soft(soft) => Some(soft.clone()),
        AMQPErrorKind::Hard(_) => None,
    }
}
