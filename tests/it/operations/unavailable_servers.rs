//! Servers that answer but cannot do their work: jobs wait and continue when the servers have
//! recovered.

use std::time::Duration;

use dispatch_worker::broker::topology;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use dispatch_worker::pipelines::MESSAGING;
use lapin::options::QueueDeleteOptions;
use lapin::{Connection, ConnectionProperties};
use secrecy::ExposeSecret;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, lanes, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn jobs_wait_without_using_an_attempt_while_postgres_is_read_only() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Slow).millis(1000))
        .await;
    read_only(&world, "on").await;
    worker.not_ready("Postgres is read-only").await;
    wait_for(
        "the worker to meet a read-only transaction",
        SOON,
        async || {
            if worker.log().contains("in a read-only transaction") {
                Ok(())
            } else {
                Err("it has not")
            }
        },
    )
    .await;
    assert!(world.job_by_key("one").await.unwrap().finished_at.is_none());
    read_only(&world, "off").await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    worker.ready().await;
    world.wait_quiet(SOON).await;
    Checks::default().hold(&world).await;
}

/// Sets the default of new connections, and terminates the existing ones.
async fn read_only(world: &TestWorld, value: &str) {
    let client = world.pool().get().await.unwrap();
    client
        .batch_execute("SET default_transaction_read_only = off")
        .await
        .unwrap();
    let setting = format!(
        "ALTER DATABASE {} SET default_transaction_read_only = {value}",
        world.database.name
    );
    client.batch_execute(&setting).await.unwrap();
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    client.execute(others, &[]).await.unwrap();
}

#[tokio::test]
async fn a_queue_deleted_while_a_worker_runs_loses_no_follow_up_and_is_consumed_once_declared_again()
 {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let url = world.amqp_url.expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_delete(MESSAGING.queue.into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    worker.not_ready("NOT_FOUND").await;

    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let job = world.wait_job_state("one", JobState::Waiting, SOON).await;
    assert_eq!(job.wait_reason.as_deref(), Some("children"));
    topology::declare(&world.amqp_url, &lanes(), topology::Outdated::Remove)
        .await
        .unwrap();
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    worker.ready().await;
    world.wait_quiet(SOON).await;
    connection.close(200, "done".into()).await.unwrap();
    Checks::default().hold(&world).await;
}
