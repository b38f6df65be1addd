//! Fairness: the backlog of one tenant does not delay another.

use std::time::Duration;

use dispatch_worker::job::JobState;
use dispatch_worker::tracker::TrackerDocument;
use serde_json::{Value, json};

use crate::support::{TestWorld, WorkerOptions, acme, intake};

const BACKLOG: usize = 5_000;
/// How much of the backlog may be done before the single job, which is published while it is worked
/// off: a count, since a time would measure the machine.
const AT_MOST_BEFORE: usize = BACKLOG / 5;

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
async fn a_single_job_succeeds_before_a_fifth_of_another_organization_s_backlog_of_five_thousand() {
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
    let before = done(&world, "now()").await;
    world.publish_job(&job("globex", "single")).await;
    world
        .wait_job_state("single", JobState::Succeeded, Duration::from_secs(60))
        .await;
    let end = "(SELECT finished_at FROM jobs WHERE dedupe_key = 'single')";
    let overtaken = done(&world, end).await - before;
    eprintln!("{before} jobs of the other organization were done before, {overtaken} meanwhile");
    assert!(
        overtaken <= AT_MOST_BEFORE,
        "{overtaken} of the other organization's jobs were done before the single one"
    );
}

/// Returns how many jobs of the backlog were done at this time, an SQL expression.
async fn done(world: &TestWorld, at: &str) -> usize {
    world
        .database
        .one(&format!(
            "SELECT count(*) FROM jobs WHERE organization = 'acme' AND finished_at <= {at}"
        ))
        .await
        .parse()
        .expect("a number")
}
