//! Fairness: the backlog of one tenant does not delay another.

use std::time::{Duration, Instant};

use dispatch_worker::job::JobState;
use dispatch_worker::tracker::TrackerDocument;
use serde_json::{Value, json};

use crate::support::{TestWorld, WorkerOptions, acme, intake};

const BACKLOG: usize = 5_000;
const DONE_WITHIN: Duration = Duration::from_secs(2);

/// Returns a job without effects.
fn job(organization: &str, key: &str) -> Value {
    json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": key, "organization": organization, "account": acme::account_id()})
}

/// Returns a document with another organization on the same account.
fn other(document: TrackerDocument) -> TrackerDocument {
    let mut other = document.organizations[0].clone();
    other.slug = "globex".to_owned();
    other.projects.clear();
    other.destinations.clear();
    TrackerDocument {
        organizations: vec![other],
        ..document
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_job_succeeds_within_two_seconds_behind_another_organization_s_backlog_of_five_thousand()
 {
    let world = TestWorld::acme_alone().await;
    world
        .import(&other(acme::document(&world.simulator().await.url)))
        .await;
    let backlog: Vec<_> = (0..BACKLOG)
        .map(|number| intake(job("acme", &format!("many-{number}")).to_string()))
        .collect();
    let publisher = world.publisher().await;
    for batch in backlog.chunks(500) {
        assert!(
            publisher.publish_all(batch).await.iter().all(Result::is_ok),
            "RabbitMQ confirms the backlog"
        );
    }
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let before = done(&world).await;
    let published = Instant::now();
    world.publish_job(&job("globex", "single")).await;
    world
        .wait_job_state("single", JobState::Succeeded, Duration::from_secs(60))
        .await;
    let took = published.elapsed();
    let left = BACKLOG - done(&world).await;
    eprintln!(
        "the single job took {took:?}; {before} of the other organization's jobs were done before, {left} are left"
    );
    assert!(
        left > BACKLOG / 2,
        "the backlog was gone before the single job was done: {left} left"
    );
    assert!(took <= DONE_WITHIN, "{took:?}");
}

async fn done(world: &TestWorld) -> usize {
    world
        .database
        .one("SELECT count(*) FROM jobs WHERE state = 'succeeded'")
        .await
        .parse()
        .expect("a number")
}
