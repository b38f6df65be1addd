//! A provider that is slow but available is not treated as hanging: every job has a call in
//! flight.

use std::time::Duration;

use dispatch_worker::devkit::simulator::state::{Options, State};
use dispatch_worker::devkit::simulator::witness::{Entry, Provider};
use dispatch_worker::job::JobState;
use serde_json::json;

use super::tenant::{self, ANN, Item, Tenant};
use crate::support::{Checks, TestWorld, acme};

const JOBS: i64 = 20;
/// The latency of every answer.
const ANSWER: Duration = Duration::from_secs(6);
/// The minimum throughput as a share of what the jobs could achieve if only the provider took
/// time.
const LEAST: f64 = 0.8;
const ALL_DONE_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_takes_six_seconds_per_answer_is_called_for_all_jobs_concurrently() {
    let world = TestWorld::acme_alone().await;
    let items = (1..=JOBS).map(Item::new).collect();
    let tenant = Tenant {
        items,
        groups: (1..=JOBS).map(|item| vec![item]).collect(),
        ..Tenant::new("slow")
    };
    let latency_millis = u64::try_from(ANSWER.as_millis()).expect("a small number");
    let state = State {
        options: Options {
            latency_millis,
            ..Options::default()
        },
        ..State::new()
    };
    tenant::settle(&world, state, &[&tenant]).await;
    let worker = world.worker(&tenant::worker());
    worker.ready().await;
    let mut jobs = Vec::new();
    for item in 1..=JOBS {
        let mut job = tenant.job(&format!("slow-{item}"));
        let event = tenant.assign(&world, item, ANN).await;
        job["events"] = json!([{"payload": event, "shared_secret": acme::HOOK_SECRET}]);
        jobs.push(job);
    }
    for job in &jobs {
        world.publish_job(job).await;
    }
    for item in 1..=JOBS {
        world
            .wait_job_state(
                &format!("slow-{item}"),
                JobState::Succeeded,
                ALL_DONE_WITHIN,
            )
            .await;
    }
    let assignees = tenant::assignees(&world).await;
    let of_tenant = assignees
        .iter()
        .filter(|((name, _), _)| *name == tenant.name);
    assert_eq!(
        of_tenant
            .filter(|(_, email)| email.as_deref() == Some(ANN))
            .count(),
        jobs.len(),
        "{assignees:?}"
    );

    calls_were_concurrent(&world.witness());
    assert_eq!(
        world.database.one("SELECT count(*) FROM controls").await,
        "0",
        "no hold was placed"
    );
    Checks::default().hold(&world).await;
}

/// Asserts that the jobs made calls at nearly the rate at which the provider answers.
fn calls_were_concurrent(witness: &[Entry]) {
    let calls: Vec<&Entry> = witness
        .iter()
        .filter(|entry| entry.provider == Provider::AzureDevops)
        .collect();
    let (first, last) = (
        calls.first().expect("a call").at,
        calls.last().expect("a call").at,
    );
    // The witness log records the time of the answer.
    let took = (last - first).as_seconds_f64() + ANSWER.as_secs_f64();
    let throughput = f64::from(u32::try_from(calls.len()).expect("a small number")) / took;
    let could_be = f64::from(i32::try_from(JOBS).expect("a small number")) / ANSWER.as_secs_f64();
    eprintln!(
        "{} calls in {took:.1} s: {throughput:.2} a second, {:.2} of what {JOBS} jobs could make",
        calls.len(),
        throughput / could_be
    );
    assert!(
        throughput >= LEAST * could_be,
        "{throughput:.2} calls a second of {could_be:.2} possible"
    );
}
