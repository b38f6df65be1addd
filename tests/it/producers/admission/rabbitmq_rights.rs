//! The rights of producers in RabbitMQ.

use std::collections::BTreeMap;

use dispatch_worker::broker::{EVENTS, EXCHANGE, KEY_JOB, WAKE, topology};
use dispatch_worker::devkit::servers::{Rights, WORKER_RIGHTS};
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, QueueBindOptions};
use lapin::types::FieldTable;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{SOON, confirmed, connected, job, with_mallory};
use crate::support::{TestWorld, WorkerOptions, lanes};

/// Returns the number of messages in a queue, as the queue itself counts them.
async fn ready(world: &TestWorld, queue: &str) -> u32 {
    world
        .publisher()
        .await
        .depth(queue)
        .await
        .expect("RabbitMQ returns a queue's depth")
        .ready
}

#[tokio::test]
async fn a_producer_s_rights_cover_the_exchange_for_producers_and_nothing_of_the_workers() {
    let (world, _, url) = with_mallory().await;
    let fresh = async || connected(url.expose_secret()).await;
    for (exchange, key) in [
        (WAKE, "wake.dispatch"),
        (EVENTS, "message.refused"),
        ("", "dispatch.control"),
    ] {
        let refused = confirmed(
            &fresh().await,
            exchange,
            key,
            b"{}",
            BasicProperties::default(),
        )
        .await;
        assert!(
            refused
                .as_ref()
                .is_err_and(|why| why.contains("ACCESS_REFUSED")),
            "{exchange}: {refused:?}"
        );
    }
    let forged = BasicProperties::default().with_user_id("guest".into());
    let refused = confirmed(&fresh().await, EXCHANGE, KEY_JOB, b"{}", forged).await;
    assert!(
        refused
            .as_ref()
            .is_err_and(|why| why.contains("PRECONDITION_FAILED")),
        "the user id of another: {refused:?}"
    );
    for queue in [
        "dispatch.jobs",
        "dispatch.control",
        "dispatch.wake",
        "dispatch.parked",
    ] {
        let options = BasicConsumeOptions::default();
        let consumed = fresh()
            .await
            .basic_consume(queue.into(), "".into(), options, FieldTable::default())
            .await;
        assert!(
            consumed
                .as_ref()
                .is_err_and(|why| why.to_string().contains("ACCESS_REFUSED")),
            "{queue}"
        );
    }
    for lane in lanes() {
        let waking = confirmed(
            &fresh().await,
            EXCHANGE,
            lane.wake_key,
            b"{}",
            BasicProperties::default(),
        )
        .await;
        waking.expect("RabbitMQ accepts the message, for no queue");
        assert_eq!(
            ready(&world, lane.queue).await,
            0,
            "{}: producers do not reach it",
            lane.queue
        );
    }
}

#[tokio::test]
async fn bindings_of_the_previous_version_are_kept_or_removed_as_requested() {
    let world = TestWorld::new().await;
    let channel = connected(world.amqp_url.expose_secret()).await;
    let lane = lanes()[0];
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(
            lane.queue.into(),
            EXCHANGE.into(),
            lane.wake_key.into(),
            options,
            arguments,
        )
        .await
        .unwrap();
    for outdated in [topology::Outdated::Keep, topology::Outdated::Remove] {
        topology::declare(&world.amqp_url, &lanes(), outdated)
            .await
            .unwrap();
        let persistent = BasicProperties::default().with_delivery_mode(2);
        confirmed(&channel, EXCHANGE, lane.wake_key, b"{}", persistent)
            .await
            .unwrap();
        assert_eq!(
            ready(&world, lane.queue).await,
            1,
            "{outdated:?}: the first message arrives, the second does not"
        );
    }
}

/// Returns the patterns of `rabbitmqctl set_permissions` in `docs/operators.md`, by user.
fn documented_rights() -> BTreeMap<String, [String; 3]> {
    let page = include_str!("../../../../docs/operators.md");
    let line = |line: &str| {
        let rest = line
            .trim()
            .strip_prefix("rabbitmqctl set_permissions --vhost / ")?;
        let (user, rights) = rest.split_once(' ')?;
        let patterns: Vec<String> = rights
            .split('\'')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        Some((
            user.to_owned(),
            patterns.try_into().expect("three patterns in quotes"),
        ))
    };
    page.lines().filter_map(line).collect()
}

#[tokio::test]
async fn the_three_documented_sets_of_rabbitmq_rights_are_sufficient() {
    let rights = documented_rights();
    let of = |rights: &Rights<'_>| [rights.configure, rights.write, rights.read].map(str::to_owned);
    assert_eq!(
        rights["dispatch-worker"],
        of(&WORKER_RIGHTS),
        "the rights of the workers in all tests"
    );
    let world = TestWorld::acme().await;
    let as_rights = |user: &str| {
        let [configure, write, read] = &rights[user];
        Rights {
            configure,
            write,
            read,
        }
    };
    let administrator = world.amqp_user(&as_rights("dispatch-admin")).await;
    an_administrator_restores_a_deleted_queue(&world, &administrator).await;
    let producer = SecretString::from(world.amqp_user(&as_rights("shop")).await);
    let register = [
        "producers",
        "register",
        &world.database.name,
        "--source",
        "shop",
        "--organization",
        "acme",
    ];
    world
        .dispatch(&[&register[..], &["--reply-queue", "reply.shop.*", "--yes"]].concat())
        .done()
        .await;
    let _worker = world.worker(&WorkerOptions::default());
    a_producer_receives_the_reply_to_its_job(&world, &producer).await;
}

async fn an_administrator_restores_a_deleted_queue(world: &TestWorld, administrator: &str) {
    let channel = connected(world.amqp_url.expose_secret()).await;
    channel
        .queue_delete(
            "dispatch.control".into(),
            lapin::options::QueueDeleteOptions::default(),
        )
        .await
        .unwrap();
    topology::declare(
        &SecretString::from(administrator),
        &lanes(),
        topology::Outdated::Remove,
    )
    .await
    .unwrap();
    let differences = topology::check(&SecretString::from(administrator), &lanes())
        .await
        .unwrap();
    assert_eq!(differences, Vec::<String>::new());
}

async fn a_producer_receives_the_reply_to_its_job(world: &TestWorld, producer: &SecretString) {
    let channel = connected(producer.expose_secret()).await;
    let options = lapin::options::QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    channel
        .queue_declare("reply.shop.1".into(), options, FieldTable::default())
        .await
        .expect("a queue of its own");
    let user = world.database.name.as_str();
    let properties = BasicProperties::default().with_content_type("application/json".into());
    let properties = properties
        .with_user_id(user.into())
        .with_reply_to("reply.shop.1".into());
    let body = job("shop", "one", "acme").to_string();
    confirmed(&channel, EXCHANGE, KEY_JOB, body.as_bytes(), properties)
        .await
        .expect("RabbitMQ accepts the message");
    let options = BasicConsumeOptions::default();
    let mut answers = channel
        .basic_consume(
            "reply.shop.1".into(),
            "".into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let answer = tokio::time::timeout(SOON, futures_util::StreamExt::next(&mut answers))
        .await
        .expect("in time");
    let answer: Value =
        serde_json::from_slice(&answer.expect("an answer").expect("a delivery").data)
            .expect("JSON");
    assert_eq!(answer["event"], "job.accepted");
}
