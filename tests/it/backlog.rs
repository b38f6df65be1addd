//! Nothing grows without a limit: with too many jobs in Postgres, new ones stay in RabbitMQ.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::broker::INTAKE_QUEUE;
use serde_json::json;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, intake, wait_for};

const LIMIT: usize = 20;
/// What two seats have in hand.
const IN_HAND: usize = 3;
const JOBS: usize = 70;
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn with_too_many_jobs_in_postgres_intake_stays_in_rabbitmq_and_due_jobs_run() {
    let world = TestWorld::acme().await;
    let environment = BTreeMap::from([("DISPATCH_BACKLOG_LIMIT".to_owned(), LIMIT.to_string())]);
    let worker = world.worker(&WorkerOptions { concurrency: Some(2), environment, ..WorkerOptions::default() });
    worker.ready().await;
    let later = |number: usize| {
        let key = format!("later-{number}");
        intake(
            json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": key, "organization": "acme", "notify": [],
            "account": acme::account_id(), "not_before": "2099-01-01T00:00:00Z"})
            .to_string(),
        )
    };
    let jobs: Vec<_> = (0..JOBS).map(later).collect();
    assert!(world.publisher().await.publish_all(&jobs).await.iter().all(Result::is_ok));
    wait_for("the others to stay in RabbitMQ", SOON, async || {
        let paused = worker.metrics().await.contains("dispatch_intake_paused 1");
        let queue = world.queue_depth(INTAKE_QUEUE).await;
        let all = queue.ready as usize + rows(&world).await == JOBS;
        if paused && all { Ok(()) } else { Err(format!("{queue:?}")) }
    })
    .await;
    assert!((LIMIT..=LIMIT + IN_HAND).contains(&rows(&world).await), "{} rows", rows(&world).await);

    wait_for("every job, as its time comes", SOON, async || {
        world.database.rows("UPDATE jobs SET due_at = now() WHERE state = 'ready' AND due_at > now()").await;
        let waiting: usize = world.database.one("SELECT count(*) FROM jobs WHERE state = 'ready'").await.parse().unwrap();
        assert!(waiting <= LIMIT + IN_HAND, "{waiting} jobs wait in Postgres");
        match world.database.one("SELECT count(*) FROM jobs WHERE state = 'succeeded'").await.as_str() {
            "70" => Ok(()),
            some => Err(format!("{some} are done")),
        }
    })
    .await;
    wait_for("intake to go on", SOON, async || {
        if worker.metrics().await.contains("dispatch_intake_paused 0") { Ok(()) } else { Err("it is paused") }
    })
    .await;
    Checks::default().hold(&world).await;
}

async fn rows(world: &TestWorld) -> usize {
    world.database.one("SELECT count(*) FROM jobs").await.parse().expect("a number")
}
