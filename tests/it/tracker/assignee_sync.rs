//! Concurrent follow-ups that write one work item, each with the assignee that the group had when
//! the follow-up was created.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::work_item_key;
use dispatch_worker::job::JobState;
use serde_json::json;

use crate::support::{Checks, TestWorld, WorkerOptions, acme};

const SOON: Duration = Duration::from_secs(60);
/// The latency of the slow read in milliseconds; long enough for a whole job and its follow-up.
const LOOK_MILLIS: u64 = 6000;

#[tokio::test]
async fn a_follow_up_with_a_slow_read_does_not_overwrite_a_newer_one() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions {
        call_seconds: Some(20),
        ..WorkerOptions::default()
    });
    let simulator = &world.simulator().await.client;
    let slow = |path: &str, millis: u64| {
        FaultRule::new(FaultKind::Slow)
            .path_contains(path)
            .millis(millis)
            .times(1)
    };
    let finds = simulator.fault(&slow("graph/users", 1000)).await.unwrap();
    publish(&world, "older", acme::ANN).await;
    world.wait_fault_met(finds).await;
    // The older follow-up is the only active job, so the next read of a work item is its read
    // before the PATCH.
    let looks = simulator
        .fault(&slow("workitemsbatch", LOOK_MILLIS))
        .await
        .unwrap();
    world.wait_fault_met(looks).await;
    publish(&world, "newer", acme::BOB).await;
    world
        .wait_job_state("newer", JobState::Succeeded, SOON)
        .await;
    let other = work_item_key(acme::ACCOUNT, acme::OTHER_ITEM);
    let assignee = async || {
        simulator
            .assignees()
            .await
            .unwrap()
            .remove(&other)
            .flatten()
    };
    assert_eq!(assignee().await.as_deref(), Some(acme::BOB));
    let older = world.job_by_key("older").await.unwrap();
    assert_eq!(
        older.open_children, 1,
        "the older follow-up is still reading"
    );
    world
        .wait_job_state("older", JobState::Succeeded, SOON)
        .await;
    assert_eq!(assignee().await.as_deref(), Some(acme::BOB));
    const RESULTS: &str = "SELECT output ->> 'result' FROM checkpoints WHERE stage = 'patch_work_item' ORDER BY finished_at";
    assert_eq!(
        world.database.rows(RESULTS).await.concat(),
        ["written", "superseded"]
    );
    Checks::default().hold(&world).await;
}

async fn publish(world: &TestWorld, key: &str, assignee: &str) {
    let event = world.assign(acme::WORK_ITEM, Some(assignee)).await;
    let mut job = acme::job(key, &event);
    job["notify"] = json!([]);
    world.publish_job(&job).await;
}
