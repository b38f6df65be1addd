//! Memory limits: messages take less than 256 MiB of a worker, however large they are and however
//! long Postgres is frozen.

use std::fs;
use std::time::Duration;

use dispatch_worker::broker::{EXCHANGE, INTAKE_QUEUE, KEY_JOB, user_of};
use dispatch_worker::devkit::guard::Command;
use dispatch_worker::job::JobState;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{TestWorld, WorkerOptions, WorkerProcess, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;
/// The kernel's memory limit for a worker.
const LIMIT: usize = 256 * MIB;
const MESSAGES: usize = 50;
const LARGE: usize = 100 * MIB;
/// The number of large messages that RabbitMQ holds at a time.
const AT_ONCE: usize = 3;
/// The number of waiting messages, each slightly below the size limit. Several copies of them
/// would not fit into [`LIMIT`].
const WAITING: usize = 120;

fn limited() -> WorkerOptions {
    WorkerOptions {
        memory: Some(LIMIT),
        ..WorkerOptions::default()
    }
}

/// Returns the peak memory of a worker in bytes.
fn most_memory(worker: &WorkerProcess) -> usize {
    let status =
        fs::read_to_string(format!("/proc/{}/status", worker.pid)).expect("the worker runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .expect("Linux reports VmHWM");
    line.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .expect("a number")
        * 1024
}

/// A producer that sends messages which the program's own publisher refuses.
struct Producer {
    user: String,
    channel: Channel,
    _connection: Connection,
}

impl Producer {
    async fn of(world: &TestWorld) -> Self {
        let url = world.amqp_url.expose_secret();
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("RabbitMQ accepts a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms");
        let user = user_of(&world.amqp_url.clone().into()).expect("a URL of RabbitMQ");
        Self {
            user,
            channel,
            _connection: connection,
        }
    }

    /// Replaces the intake queue by a classic one that keeps transient messages in memory, as
    /// RabbitMQ's disk is not under test.
    async fn keeps_intake_in_memory(&self) {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("classic".into()),
        );
        let (delete, declare, bind) = (
            QueueDeleteOptions::default(),
            QueueDeclareOptions::default(),
            QueueBindOptions::default(),
        );
        self.channel
            .queue_delete(INTAKE_QUEUE.into(), delete)
            .await
            .expect("RabbitMQ deletes the queue");
        let declared = self.channel.queue_declare(
            INTAKE_QUEUE.into(),
            QueueDeclareOptions {
                durable: true,
                ..declare
            },
            arguments,
        );
        declared.await.expect("RabbitMQ declares the queue");
        let bound = self.channel.queue_bind(
            INTAKE_QUEUE.into(),
            EXCHANGE.into(),
            KEY_JOB.into(),
            bind,
            FieldTable::default(),
        );
        bound.await.expect("RabbitMQ binds the queue");
    }

    /// Publishes a transient message and waits for the confirm.
    async fn publish(&self, body: &[u8], headers: FieldTable) {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_headers(headers);
        let properties = properties.with_user_id(self.user.as_str().into());
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let sent =
            self.channel
                .basic_publish(EXCHANGE.into(), KEY_JOB.into(), options, body, properties);
        let confirmed = sent
            .await
            .expect("RabbitMQ accepts the message")
            .await
            .expect("a confirm");
        assert!(confirmed.is_ack());
    }
}

async fn letters(world: &TestWorld) -> usize {
    world
        .database
        .one("SELECT count(*) FROM dead_letters")
        .await
        .parse()
        .expect("a number")
}

async fn wait_letters(world: &TestWorld, at_least: usize) {
    wait_for(
        &format!("{at_least} dead letters"),
        SOON,
        async || match letters(world).await {
            letters if letters >= at_least => Ok(()),
            letters => Err(letters),
        },
    )
    .await;
}

#[tokio::test]
async fn a_worker_with_256_mib_survives_fifty_messages_of_100_mib_and_fifty_huge_header_tables() {
    let world = TestWorld::with_own_servers().await;
    let producer = Producer::of(&world).await;
    producer.keeps_intake_in_memory().await;
    let worker = world.worker(&limited());
    worker.ready().await;
    let mut body = vec![b'x'; LARGE];
    let (same, number) = body.split_at_mut(LARGE - 8);
    let mut of_same = Sha256::new();
    of_same.update(&*same);
    number.fill(0);
    let mut expected = Vec::new();
    for message in 0..MESSAGES as u64 {
        body[LARGE - 8..].copy_from_slice(&message.to_be_bytes());
        let sha256 = of_same
            .clone()
            .chain_update(message.to_be_bytes())
            .finalize();
        expected.push(vec![
            "too_large".to_owned(),
            LARGE.to_string(),
            data_encoding::HEXLOWER.encode(&sha256),
        ]);
        producer.publish(&body, FieldTable::default()).await;
        wait_letters(&world, expected.len().saturating_sub(AT_ONCE)).await;
    }
    wait_letters(&world, MESSAGES).await;
    let mut found = world
        .database
        .rows("SELECT code, body_bytes, encode(body_sha256, 'hex') FROM dead_letters")
        .await;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);

    // Each value takes one byte on the wire and a hundred in memory.
    let flood = AMQPValue::FieldArray(vec![AMQPValue::Void; 120_000].into());
    let mut headers = FieldTable::default();
    headers.insert("a".into(), flood);
    for _ in 0..MESSAGES {
        producer.publish(b"{}", headers.clone()).await;
    }
    wait_letters(&world, 2 * MESSAGES).await;
    let floods = "SELECT count(*) FROM dead_letters WHERE code = 'headers_too_large' AND length(headers::text) < 100";
    assert_eq!(world.database.one(floods).await, MESSAGES.to_string());

    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("after", &event)).await;
    world
        .wait_job_state("after", JobState::Succeeded, SOON)
        .await;
    assert!(
        !worker.log().contains("the consumer reconnects"),
        "a connection was lost"
    );
    let most = most_memory(&worker);
    eprintln!("the worker had {} MiB at most", most / MIB);
    assert!(most < LIMIT, "{most}");
}

#[tokio::test]
async fn messages_that_wait_for_postgres_take_less_than_256_mib_and_are_all_handled_afterwards() {
    let world = TestWorld::with_own_servers().await;
    // The memory of running jobs is limited by the concurrency, not by the budget: a job of 1 MiB
    // takes up to 6 MiB.
    let worker = world.worker(&WorkerOptions {
        concurrency: Some(8),
        ..limited()
    });
    worker.ready().await;
    let mut client = world.pool().get().await.expect("a connection");
    let lock = client.transaction().await.expect("a transaction");
    // The worker keeps its lease but cannot insert rows.
    lock.batch_execute("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE")
        .await
        .expect("the lock");
    let key = |number: usize| format!("large {number}");
    for number in 0..WAITING {
        let mut message = acme::job(&key(number), &json!({"filler": "x".repeat(MIB - 2048)}));
        message["notify"] = json!([]);
        world.publish_job(&message).await;
    }
    wait_for(
        "the worker's memory for messages to be used",
        SOON,
        async || {
            let metrics = worker.metrics().await;
            let used = metrics
                .lines()
                .find_map(|line| line.strip_prefix("dispatch_intake_bytes "));
            let used: f64 = used.and_then(|used| used.parse().ok()).unwrap_or_default();
            if used > (56 * MIB) as f64 && used <= (64 * MIB) as f64 {
                Ok(())
            } else {
                Err(used)
            }
        },
    )
    .await;
    world.server_command(Command::FreezePostgres).await;
    wait_for("the worker to lose its lease", SOON, async || {
        if worker.log().contains("no incarnation can begin yet") {
            Ok(())
        } else {
            Err("it has not")
        }
    })
    .await;
    world.server_command(Command::ThawPostgres).await;
    lock.rollback().await.expect("Postgres answers");
    for number in 0..WAITING {
        world
            .wait_job_state(&key(number), JobState::Succeeded, SOON)
            .await;
    }
    world.wait_quiet(SOON).await;
    let most = most_memory(&worker);
    eprintln!("the worker had {} MiB at most", most / MIB);
    assert!(most < LIMIT, "{most}");
    // Speeds up the search for secrets at the world's end.
    world.database.rows("TRUNCATE jobs CASCADE").await;
}
