//! Exchanges, queues and bindings, with every argument explicit. An administrator declares them; a
//! worker only checks them.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::{
    BrokerError, CALL_TIMEOUT, CONTROL_QUEUE, DEAD, EVENTS, EXCHANGE, INTAKE_QUEUE, KEY_CANCEL,
    KEY_CONFIGURE, KEY_JOB, PARKED_QUEUE, WAKE, connect, rights, within,
};
use crate::engine::Lane;
use crate::tls_policy::Endpoint;

/// The delivery limit of queues. It is high because a crash counts against every prefetched
/// message; the worker itself counts attempts.
const DELIVERY_LIMIT: i64 = 1000;
/// The length at which a queue refuses publishes. The waker keeps its queues far shorter, so only
/// the intake queue can reach it.
const MAX_LENGTH: i64 = 1_000_000;
const MAX_BYTES: i64 = 4 << 30;

struct QueuePlan {
    name: &'static str,
    arguments: FieldTable,
    bindings: Vec<(&'static str, &'static str)>,
    /// Bindings of earlier versions, through which producers could reach queues that are not
    /// theirs.
    outdated: Vec<(&'static str, &'static str)>,
}

fn exchanges() -> [(&'static str, ExchangeKind); 4] {
    [
        (EXCHANGE, ExchangeKind::Direct),
        (WAKE, ExchangeKind::Direct),
        (EVENTS, ExchangeKind::Topic),
        (DEAD, ExchangeKind::Fanout),
    ]
}

fn queues(lanes: &[Lane]) -> Vec<QueuePlan> {
    let control = [(EXCHANGE, KEY_CONFIGURE), (EXCHANGE, KEY_CANCEL)];
    let lane = |lane: &Lane| {
        let (bindings, outdated) = (vec![(WAKE, lane.wake_key)], vec![(EXCHANGE, lane.wake_key)]);
        QueuePlan {
            name: lane.queue,
            arguments: lane_arguments(),
            bindings,
            outdated,
        }
    };
    let intake = QueuePlan {
        name: INTAKE_QUEUE,
        arguments: lane_arguments(),
        // The second one is for dead letters that a worker publishes again.
        bindings: vec![(EXCHANGE, KEY_JOB), (WAKE, KEY_JOB)],
        outdated: control.to_vec(),
    };
    let control = QueuePlan {
        name: CONTROL_QUEUE,
        arguments: lane_arguments(),
        bindings: [control, [(WAKE, KEY_CONFIGURE), (WAKE, KEY_CANCEL)]].concat(),
        outdated: Vec::new(),
    };
    let parked = QueuePlan {
        name: PARKED_QUEUE,
        arguments: common_arguments(),
        bindings: vec![(DEAD, "")],
        outdated: Vec::new(),
    };
    [control, intake]
        .into_iter()
        .chain(lanes.iter().map(lane))
        .chain([parked])
        .collect()
}

fn common_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MAX_LENGTH));
    arguments.insert(
        "x-max-length-bytes".into(),
        AMQPValue::LongLongInt(MAX_BYTES),
    );
    arguments
}

fn lane_arguments() -> FieldTable {
    let mut arguments = common_arguments();
    arguments.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongLongInt(DELIVERY_LIMIT),
    );
    arguments.insert(
        "x-dead-letter-exchange".into(),
        AMQPValue::LongString(DEAD.into()),
    );
    arguments.insert(
        "x-dead-letter-strategy".into(),
        AMQPValue::LongString("at-least-once".into()),
    );
    arguments
}

/// Treatment of the bindings of earlier versions by [`declare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdated {
    /// Keep them, for workers of that version that still run.
    Keep,
    Remove,
}

/// Declares everything for intake and these lanes. Returns one line per declaration. Repeating it
/// changes nothing.
///
/// # Errors
/// [`BrokerError`]; the broker rejects a queue that exists with other arguments, and reports the
/// difference.
pub async fn declare(
    endpoint: impl Into<Endpoint>,
    lanes: &[Lane],
    outdated: Outdated,
) -> Result<Vec<String>, BrokerError> {
    let connection = connect(&endpoint.into(), "dispatch topology").await?;
    let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
    let mut lines = Vec::new();
    for (name, kind) in exchanges() {
        lines.push(format!("exchange {name} ({kind:?})"));
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        within(
            CALL_TIMEOUT,
            channel.exchange_declare(name.into(), kind, durable, FieldTable::default()),
        )
        .await?;
    }
    for plan in queues(lanes) {
        within(
            CALL_TIMEOUT,
            channel.queue_declare(
                plan.name.into(),
                QueueDeclareOptions::durable(),
                plan.arguments,
            ),
        )
        .await?;
        lines.push(format!("queue {}", plan.name));
        for (exchange, key) in plan.bindings {
            let options = QueueBindOptions::default();
            within(
                CALL_TIMEOUT,
                channel.queue_bind(
                    plan.name.into(),
                    exchange.into(),
                    key.into(),
                    options,
                    FieldTable::default(),
                ),
            )
            .await?;
            lines.push(format!("binding {exchange} --{key}--> {}", plan.name));
        }
        // Removed after the new ones are declared, so that every message always has a route.
        let outdated = if outdated == Outdated::Remove {
            plan.outdated
        } else {
            Vec::new()
        };
        for (exchange, key) in outdated {
            // RabbitMQ accepts the removal of a binding that does not exist.
            let removing = channel.queue_unbind(
                plan.name.into(),
                exchange.into(),
                key.into(),
                FieldTable::default(),
            );
            within(CALL_TIMEOUT, removing).await?;
        }
    }
    close(connection).await;
    Ok(lines)
}

/// Returns the differences from what [`declare`] would create, as reported by the broker; empty if
/// there are none. The arguments of existing queues are compared by declaring them again, which
/// needs the permission to configure; missing objects are reported, not created. AMQP cannot list
/// bindings: a missing one is found when a publish is returned.
///
/// # Errors
/// [`BrokerError`] if the broker cannot be reached.
pub async fn check(
    endpoint: impl Into<Endpoint>,
    lanes: &[Lane],
) -> Result<Vec<String>, BrokerError> {
    let connection = connect(&endpoint.into(), "dispatch topology").await?;
    let mut differences = Vec::new();
    for (name, kind) in exchanges() {
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        if let Err(error) = exchange_is_there(&channel, name, kind.clone()).await {
            differences.push(format!("exchange {name}: {}", crate::fault::chain(&error)));
            continue;
        }
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        if let Err(error) = within(
            CALL_TIMEOUT,
            channel.exchange_declare(name.into(), kind, durable, FieldTable::default()),
        )
        .await
        {
            differences.push(format!("exchange {name}: {}", crate::fault::chain(&error)));
        }
    }
    for plan in queues(lanes) {
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        if let Err(error) = depth(&channel, plan.name).await {
            differences.push(format!(
                "queue {}: {}",
                plan.name,
                crate::fault::chain(&error)
            ));
            continue;
        }
        let declared = channel.queue_declare(
            plan.name.into(),
            QueueDeclareOptions::durable(),
            plan.arguments,
        );
        if let Err(error) = within(CALL_TIMEOUT, declared).await {
            differences.push(format!(
                "queue {}: {}",
                plan.name,
                crate::fault::chain(&error)
            ));
        }
    }
    close(connection).await;
    Ok(differences)
}

/// Returns the objects of [`declare`] that do not exist. Needs no permission to configure;
/// arguments are not compared. From RabbitMQ 4.3 on, a user without any permission on an object
/// cannot check it: such an object is not reported as missing.
///
/// # Errors
/// [`BrokerError`] if the broker cannot be reached.
pub async fn missing(
    endpoint: impl Into<Endpoint>,
    lanes: &[Lane],
) -> Result<Vec<String>, BrokerError> {
    let connection = connect(&endpoint.into(), "dispatch check").await?;
    let mut missing = Vec::new();
    for (name, kind) in exchanges() {
        // A passive declare of a missing object closes its channel.
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        if let Err(error) = exchange_is_there(&channel, name, kind).await
            && !rights::is_access_refused(&error)
        {
            missing.push(format!("exchange {name}: {}", crate::fault::chain(&error)));
        }
    }
    for plan in queues(lanes) {
        let channel = within(CALL_TIMEOUT, connection.create_channel()).await?;
        if let Err(error) = depth(&channel, plan.name).await
            && !rights::is_access_refused(&error)
        {
            missing.push(format!(
                "queue {}: {}",
                plan.name,
                crate::fault::chain(&error)
            ));
        }
    }
    close(connection).await;
    Ok(missing)
}

async fn exchange_is_there(
    channel: &Channel,
    name: &'static str,
    kind: ExchangeKind,
) -> Result<(), BrokerError> {
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    within(
        CALL_TIMEOUT,
        channel.exchange_declare(name.into(), kind, passive, FieldTable::default()),
    )
    .await
}

/// Returns the numbers of ready messages and of consumers of a queue, without changing it.
pub(super) async fn depth(channel: &Channel, queue: &str) -> Result<(u32, u32), BrokerError> {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = within(
        CALL_TIMEOUT,
        channel.queue_declare(queue.into(), passive, FieldTable::default()),
    )
    .await?;
    Ok((declared.message_count(), declared.consumer_count()))
}

pub(super) async fn close(connection: Connection) {
    // A failed close changes nothing.
    drop(within(CALL_TIMEOUT, connection.close(200, "done".into())).await);
}
