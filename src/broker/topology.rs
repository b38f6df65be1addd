//! Exchanges, queues and bindings, every argument explicit. An administrator declares them; a worker only looks.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::{
    BrokerError, CALL_TIMEOUT, CONTROL_QUEUE, DEAD, EVENTS, EXCHANGE, INTAKE_QUEUE, KEY_CANCEL, KEY_CONFIGURE, KEY_JOB,
    PARKED_QUEUE, WAKE, connect, rights, within,
};
use crate::engine::Lane;
use crate::tls_policy::Endpoint;

/// High, because a crash counts every prefetched neighbour: the worker itself judges crashes.
const DELIVERY_LIMIT: i64 = 1000;
/// A queue longer than this refuses publishes; the waker keeps its queues far shorter, so only intake's can reach it.
const MAX_LENGTH: i64 = 1_000_000;
const MAX_BYTES: i64 = 4 << 30;

struct QueuePlan {
    name: &'static str,
    arguments: FieldTable,
    bindings: Vec<(&'static str, &'static str)>,
    /// Bindings of versions before, by which producers reached what is not theirs.
    outdated: Vec<(&'static str, &'static str)>,
}

fn exchanges() -> [(&'static str, ExchangeKind); 4] {
    [(EXCHANGE, ExchangeKind::Direct), (WAKE, ExchangeKind::Direct), (EVENTS, ExchangeKind::Topic), (DEAD, ExchangeKind::Fanout)]
}

fn queues(lanes: &[Lane]) -> Vec<QueuePlan> {
    let control = vec![(EXCHANGE, KEY_CONFIGURE), (EXCHANGE, KEY_CANCEL)];
    let lane = |lane: &Lane| {
        let (bindings, outdated) = (vec![(WAKE, lane.wake_key)], vec![(EXCHANGE, lane.wake_key)]);
        QueuePlan { name: lane.queue, arguments: lane_arguments(), bindings, outdated }
    };
    let intake = QueuePlan {
        name: INTAKE_QUEUE,
        arguments: lane_arguments(),
        bindings: vec![(EXCHANGE, KEY_JOB)],
        outdated: control.clone(),
    };
    let control = QueuePlan { name: CONTROL_QUEUE, arguments: lane_arguments(), bindings: control, outdated: Vec::new() };
    let parked =
        QueuePlan { name: PARKED_QUEUE, arguments: common_arguments(), bindings: vec![(DEAD, "")], outdated: Vec::new() };
    [control, intake].into_iter().chain(lanes.iter().map(lane)).chain([parked]).collect()
}

fn common_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MAX_LENGTH));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(MAX_BYTES));
    arguments
}

fn lane_arguments() -> FieldTable {
    let mut arguments = common_arguments();
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString(DEAD.into()));
    arguments.insert("x-dead-letter-strategy".into(), AMQPValue::LongString("at-least-once".into()));
    arguments
}

/// What [`declare`] does with the bindings of versions before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdated {
    /// They stay, for workers of that version that still run.
    Keep,
    /// They go.
    Remove,
}

/// Declares everything for these lanes and intake. Returns what was done, a line each. Repeating it changes nothing.
///
/// # Errors
/// [`BrokerError`]; a queue that exists with other arguments is refused by the broker, which says how it differs.
pub async fn declare(endpoint: impl Into<Endpoint>, lanes: &[Lane], outdated: Outdated) -> Result<Vec<String>, BrokerError> {
    let connection = connect(&endpoint.into(), "dispatch topology").await?;
    let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
    let mut lines = Vec::new();
    for (name, kind) in exchanges() {
        lines.push(format!("exchange {name} ({kind:?})"));
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        within(CALL_TIMEOUT, channel.exchange_declare(name.into(), kind, durable, FieldTable::default())).await?;
    }
    for plan in queues(lanes) {
        within(CALL_TIMEOUT, channel.queue_declare(plan.name.into(), QueueDeclareOptions::durable(), plan.arguments)).await?;
        lines.push(format!("queue {}", plan.name));
        for (exchange, key) in plan.bindings {
            let options = QueueBindOptions::default();
            within(
                CALL_TIMEOUT,
                channel.queue_bind(plan.name.into(), exchange.into(), key.into(), options, FieldTable::default()),
            )
            .await?;
            lines.push(format!("binding {exchange} --{key}--> {}", plan.name));
        }
        // After the new ones: nothing is without a way.
        let outdated = if outdated == Outdated::Remove { plan.outdated } else { Vec::new() };
        for (exchange, key) in outdated {
            // RabbitMQ takes the removal of a binding that is not there.
            let removing = channel.queue_unbind(plan.name.into(), exchange.into(), key.into(), FieldTable::default());
            within(CALL_TIMEOUT, removing).await?;
        }
    }
    close(connection).await;
    Ok(lines)
}

/// What the broker says differs from what [`declare`] would make; empty where nothing does. Queues' arguments are compared by
/// declaring again what is already there, which needs the right to configure; a missing thing is told, not made. Bindings
/// cannot be asked for in AMQP: a publish that no queue takes tells at run time.
///
/// # Errors
/// [`BrokerError`] where the broker cannot be reached.
pub async fn check(endpoint: impl Into<Endpoint>, lanes: &[Lane]) -> Result<Vec<String>, BrokerError> {
    let connection = connect(&endpoint.into(), "dispatch topology").await?;
    let mut differences = Vec::new();
    for (name, kind) in exchanges() {
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        if let Err(error) = exchange_is_there(&channel, name, kind.clone()).await {
            differences.push(format!("exchange {name}: {}", crate::fault::chain(&error)));
            continue;
        }
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        if let Err(error) =
            within(CALL_TIMEOUT, channel.exchange_declare(name.into(), kind, durable, FieldTable::default())).await
        {
            differences.push(format!("exchange {name}: {}", crate::fault::chain(&error)));
        }
    }
    for plan in queues(lanes) {
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        if let Err(error) = look(&channel, plan.name).await {
            differences.push(format!("queue {}: {}", plan.name, crate::fault::chain(&error)));
            continue;
        }
        let declared = channel.queue_declare(plan.name.into(), QueueDeclareOptions::durable(), plan.arguments);
        if let Err(error) = within(CALL_TIMEOUT, declared).await {
            differences.push(format!("queue {}: {}", plan.name, crate::fault::chain(&error)));
        }
    }
    close(connection).await;
    Ok(differences)
}

/// What of [`declare`] is not there, looked for without the right to configure; arguments are not compared. From RabbitMQ 4.3 on,
/// nobody may look for what they have no right on: that is not missing, it is not theirs.
///
/// # Errors
/// [`BrokerError`] where the broker cannot be reached.
pub async fn missing(endpoint: impl Into<Endpoint>, lanes: &[Lane]) -> Result<Vec<String>, BrokerError> {
    let connection = connect(&endpoint.into(), "dispatch check").await?;
    let mut missing = Vec::new();
    for (name, kind) in exchanges() {
        // A passive declare that finds nothing closes its channel.
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        if let Err(error) = exchange_is_there(&channel, name, kind).await
            && !rights::is_access_refused(&error)
        {
            missing.push(format!("exchange {name}: {}", crate::fault::chain(&error)));
        }
    }
    for plan in queues(lanes) {
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        if let Err(error) = look(&channel, plan.name).await
            && !rights::is_access_refused(&error)
        {
            missing.push(format!("queue {}: {}", plan.name, crate::fault::chain(&error)));
        }
    }
    close(connection).await;
    Ok(missing)
}

async fn exchange_is_there(channel: &Channel, name: &'static str, kind: ExchangeKind) -> Result<(), BrokerError> {
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    within(CALL_TIMEOUT, channel.exchange_declare(name.into(), kind, passive, FieldTable::default())).await
}

/// Looks at a queue without changing it: ready messages and consumers.
pub(super) async fn look(channel: &Channel, queue: &str) -> Result<(u32, u32), BrokerError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let looked = within(CALL_TIMEOUT, channel.queue_declare(queue.into(), passive, FieldTable::default())).await?;
    Ok((looked.message_count(), looked.consumer_count()))
}

pub(super) async fn close(connection: Connection) {
    // Whether the goodbye is heard changes nothing.
    drop(within(CALL_TIMEOUT, connection.close(200, "done".into())).await);
}
