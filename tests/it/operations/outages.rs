//! Postgres and RabbitMQ killed under load, and RabbitMQ under an alarm, on servers of each test's
//! own.

use std::time::Duration;

use dispatch_worker::broker::{BrokerError, Publisher};
use dispatch_worker::devkit::guard::Command;
use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, gate, intake, queues, wait_for};

/// A killed server needs some seconds to start; the worker's own part of the delay is at most 10
/// s.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(60);
const JOBS: usize = 30;

/// Publishes jobs, kills and starts a server while they run, and waits for all of them.
async fn survives(crash: Command, start: Command) {
    let world = TestWorld::with_own_servers().await;
    let _worker = world.worker(&WorkerOptions {
        concurrency: Some(8),
        ..WorkerOptions::default()
    });
    let keys: Vec<String> = (0..JOBS).map(|number| format!("job-{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let to = if number % 2 == 0 {
            acme::ANN
        } else {
            acme::BOB
        };
        let event = world.assign(acme::WORK_ITEM, Some(to)).await;
        world.publish_job(&acme::job(key, &event)).await;
    }
    world
        .wait_job_state(&keys[0], JobState::Succeeded, AFTER_AN_OUTAGE)
        .await;
    if crash == Command::CrashRabbitmq {
        knows_its_queues(&world).await;
    }
    world.server_command(crash).await;
    world.server_command(start).await;
    for key in &keys {
        world
            .wait_job_state(key, JobState::Succeeded, AFTER_AN_OUTAGE)
            .await;
    }
    world.wait_quiet(AFTER_AN_OUTAGE).await;
    are_consumed(&world).await;
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE state <> 'succeeded'")
            .await,
        "0"
    );
    Checks::default().hold(&world).await;
}

/// Waits until RabbitMQ has written the names of its quorum queues to disk. It does so some
/// seconds after a queue is declared; a queue whose name it does not know after a crash comes back
/// empty and never gets a leader. Source: rabbitmq-server issue 15725; `ra_directory`, which
/// inserts into `names.dets` without a sync.
async fn knows_its_queues(world: &TestWorld) {
    let folder = world
        .servers_folder()
        .join("rabbitmq/mnesia/dispatch@localhost/quorum/dispatch@localhost");
    wait_for(
        "RabbitMQ to write the names of its queues",
        Duration::from_secs(30),
        async || {
            let written =
                std::fs::read(folder.join("names.dets")).map_err(|error| error.to_string())?;
            let written = String::from_utf8_lossy(&written);
            let missing = queues()
                .find(|queue| !written.contains(&format!("{}_{queue}", world.database.name)));
            missing.map_or(Ok(()), |queue| Err(format!("{queue} is not in names.dets")))
        },
    )
    .await;
}

/// Waits until each queue has a consumer, including the empty ones.
async fn are_consumed(world: &TestWorld) {
    // A new connection: the world's own ended with the server.
    let publisher = Publisher::connect(&world.amqp_url).await.unwrap();
    wait_for("a consumer for every queue", AFTER_AN_OUTAGE, async || {
        for queue in queues() {
            let depth = publisher
                .depth(queue)
                .await
                .map_err(|error| format!("{queue}: {error}"))?;
            if depth.consumers == 0 {
                return Err(format!("{queue} has none"));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_rabbitmq_loses_no_job_and_uses_no_attempt() {
    survives(Command::CrashRabbitmq, Command::StartRabbitmq).await;
}

#[tokio::test]
async fn a_memory_alarm_of_rabbitmq_blocks_messages_and_no_work() {
    let world = TestWorld::with_own_servers().await;
    gate::shut(&world.database, "update_assignments").await;
    let worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    gate::at_it(&world.database, None).await;
    world.server_command(Command::AlarmRabbitmq).await;
    gate::open(&world.database).await;
    let row = world
        .wait_job_state("one", JobState::Waiting, AFTER_AN_OUTAGE)
        .await;
    assert_eq!(
        row.wait_reason.as_deref(),
        Some("children"),
        "the job in hand continues"
    );
    worker.not_ready("it has a memory or disk alarm").await;
    // The publish fails after the publisher's timeout; by then, the worker has tried again, too.
    let producer = Publisher::connect(&world.amqp_url).await.unwrap();
    let again = producer
        .publish(&intake(acme::job("one", &event).to_string()))
        .await;
    assert!(matches!(again, Err(BrokerError::TimedOut(_))), "{again:?}");
    worker.not_ready("it has a memory or disk alarm").await;
    let begun = "SELECT count(*) FROM jobs WHERE parent_id IS NOT NULL AND state <> 'ready'";
    assert_eq!(
        world.database.one(begun).await,
        "0",
        "no follow-up can be woken"
    );
    world.server_command(Command::CalmRabbitmq).await;
    world
        .wait_job_state("one", JobState::Succeeded, AFTER_AN_OUTAGE)
        .await;
    world.wait_quiet(AFTER_AN_OUTAGE).await;
    worker.ready().await;
    let reconnects = "dispatch_reconnects_total{link=\"publisher\"} 0\n";
    assert!(
        worker.metrics().await.contains(reconnects),
        "the worker keeps its connection"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_killed_postgres_loses_no_job_and_uses_no_attempt() {
    survives(Command::CrashPostgres, Command::StartPostgres).await;
}
