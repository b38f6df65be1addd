//! Backpressure: with too many jobs or dead letters in Postgres, new messages stay in RabbitMQ.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::broker::INTAKE_QUEUE;
use serde_json::json;

use crate::support::{Checks, TestWorld, WorkerOptions, WorkerProcess, acme, intake, wait_for};

const LIMIT: usize = 20;
/// The tolerance for what two permits have in flight.
const IN_HAND: usize = 3;
const JOBS: usize = 70;
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn intake_messages_stay_in_rabbitmq_while_postgres_has_too_many_jobs_and_due_jobs_run() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&limited());
    worker.ready().await;
    let later = |number: usize| {
        let key = format!("later-{number}");
        intake(
            json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": key, "organization": "acme", "notify": [],
            "account": acme::account_id(), "not_before": acme::later()})
            .to_string(),
        )
    };
    let jobs: Vec<_> = (0..JOBS).map(later).collect();
    assert!(
        world
            .publisher()
            .await
            .publish_all(&jobs)
            .await
            .iter()
            .all(Result::is_ok)
    );
    others_stay(&world, &worker, "jobs").await;

    wait_for("every job to succeed as it becomes due", SOON, async || {
        world
            .database
            .rows("UPDATE jobs SET due_at = now() WHERE state = 'ready' AND due_at > now()")
            .await;
        let waiting = "SELECT count(*) FROM jobs WHERE state = 'ready' AND woken_at IS NULL";
        let waiting: usize = world.database.one(waiting).await.parse().unwrap();
        assert!(
            waiting <= LIMIT + IN_HAND,
            "{waiting} jobs wait in Postgres"
        );
        match world
            .database
            .one("SELECT count(*) FROM jobs WHERE state = 'succeeded'")
            .await
            .as_str()
        {
            "70" => Ok(()),
            some => Err(format!("{some} have succeeded")),
        }
    })
    .await;
    wait_for("intake to resume", SOON, async || {
        if worker.metrics().await.contains("dispatch_intake_paused 0") {
            Ok(())
        } else {
            Err("intake is paused")
        }
    })
    .await;
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn intake_messages_stay_in_rabbitmq_until_an_operator_resolves_the_excess_dead_letters() {
    let world = TestWorld::acme().await;
    let first = world.worker(&limited());
    first.ready().await;
    let junk = vec![intake("not JSON"); JOBS];
    assert!(
        world
            .publisher()
            .await
            .publish_all(&junk)
            .await
            .iter()
            .all(Result::is_ok)
    );
    others_stay(&world, &first, "dead_letters").await;
    first.kill9().await;
    // This worker has stored none of them, so it must count the rows.
    let second = world.worker(&limited());
    second.ready().await;
    others_stay(&world, &second, "dead_letters").await;
    let detail = second.readiness().await.unwrap().1;
    assert!(
        detail.contains("dead letters are open; replay or discard them"),
        "{detail}"
    );
    wait_for(
        "every message to become a dead letter as earlier ones are resolved",
        SOON,
        async || {
            world
                .database
                .rows("UPDATE dead_letters SET resolved_at = now() WHERE resolved_at IS NULL")
                .await;
            match world
                .database
                .one("SELECT count(*) FROM dead_letters")
                .await
                .as_str()
            {
                "70" => Ok(()),
                some => Err(format!("{some} dead letters")),
            }
        },
    )
    .await;
    Checks::default().hold(&world).await;
}

fn limited() -> WorkerOptions {
    let environment = BTreeMap::from([("DISPATCH_BACKLOG_LIMIT".to_owned(), LIMIT.to_string())]);
    WorkerOptions {
        concurrency: Some(2),
        environment,
        ..WorkerOptions::default()
    }
}

/// Waits until intake pauses, and asserts that the number of rows is close to the limit.
async fn others_stay(world: &TestWorld, worker: &WorkerProcess, table: &str) {
    let rows = async || -> usize {
        let count = world
            .database
            .one(&format!("SELECT count(*) FROM {table}"))
            .await;
        count.parse().expect("a number")
    };
    wait_for("the other messages to stay in RabbitMQ", SOON, async || {
        let paused = worker.metrics().await.contains("dispatch_intake_paused 1");
        let queue = world.queue_depth(INTAKE_QUEUE).await;
        let all = queue.ready as usize + rows().await == JOBS;
        if paused && all {
            Ok(())
        } else {
            Err(format!("{queue:?}"))
        }
    })
    .await;
    assert!(
        (LIMIT - IN_HAND..=LIMIT + IN_HAND).contains(&rows().await),
        "{} rows",
        rows().await
    );
}
