//! Postgres and RabbitMQ killed under load, on servers of this file's own.

use std::time::Duration;

use dispatch_worker::devkit::guard::Command;
use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, acme};

/// A killed server needs some seconds to boot; the worker's own part of it is bounded by 10 s.
const AFTER_AN_OUTAGE: Duration = Duration::from_secs(60);
const JOBS: usize = 30;

/// Publishes jobs, kills and starts a server while they run, and waits for all of them.
async fn survives(crash: Command, start: Command) {
    let world = TestWorld::with_own_servers().await;
    let _worker = world.worker(&WorkerOptions { concurrency: Some(8), ..WorkerOptions::default() });
    let keys: Vec<String> = (0..JOBS).map(|number| format!("job-{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let to = if number % 2 == 0 { acme::ANN } else { acme::BOB };
        let event = world.assign(acme::WORK_ITEM, Some(to)).await;
        world.publish_job(&acme::job(key, &event)).await;
    }
    world.wait_job_state(&keys[0], JobState::Succeeded, AFTER_AN_OUTAGE).await;
    world.server_command(crash).await;
    world.server_command(start).await;
    for key in &keys {
        world.wait_job_state(key, JobState::Succeeded, AFTER_AN_OUTAGE).await;
    }
    world.wait_quiet(AFTER_AN_OUTAGE).await;
    assert_eq!(world.database.one("SELECT count(*) FROM jobs WHERE state <> 'succeeded'").await, "0");
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_killed_rabbitmq_loses_no_job_and_uses_no_attempt() {
    survives(Command::CrashRabbitmq, Command::StartRabbitmq).await;
}

#[tokio::test]
async fn a_killed_postgres_loses_no_job_and_uses_no_attempt() {
    survives(Command::CrashPostgres, Command::StartPostgres).await;
}
