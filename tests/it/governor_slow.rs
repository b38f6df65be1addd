//! A provider that answers slowly, but answers, is called as much as one that is quick.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::witness::Provider;
use dispatch_worker::job::JobState;
use serde_json::json;

use crate::support::{TestWorld, WorkerOptions, acme};

const JOBS: usize = 20;
const ANSWER: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_jobs_of_an_organization_all_call_a_host_whose_answers_take_six_seconds() {
    let world = TestWorld::acme_alone().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let slow = FaultRule::new(FaultKind::Slow).provider(Provider::AzureDevops).millis(6000);
    world.simulator().await.client.fault(&slow).await.unwrap();
    let keys: Vec<String> = (0..JOBS).map(|number| format!("slow-{number}")).collect();
    for key in &keys {
        let job = json!({
            "schema": 1, "source": acme::SOURCE, "dedupe_key": key, "organization": "acme", "account": acme::account_id(),
            "search": {"text": "slow"}
        });
        world.publish_job(&job).await;
    }
    for key in &keys {
        world.wait_job_state(key, JobState::Succeeded, Duration::from_secs(180)).await;
    }
    let calls: Vec<_> = world.witness().into_iter().filter(|entry| entry.provider == Provider::AzureDevops).collect();
    let (first, last) = (calls.first().expect("a call"), calls.last().expect("a call"));
    let took = (last.at - first.at).as_seconds_f64() + ANSWER.as_secs_f64();
    let under_way = calls.len() as f64 * ANSWER.as_secs_f64() / took;
    eprintln!("{} calls of {JOBS} jobs in {took:.1} s: {under_way:.1} under way at a time", calls.len());
    assert!(calls.len() >= 2 * JOBS, "{} calls", calls.len());
    assert!(under_way >= 0.8 * JOBS as f64, "{under_way:.1}");
    assert_eq!(world.database.one("SELECT count(*) FROM controls").await, "0", "nobody was held");
}
