//! A job that crashes its workers is parked.

use std::time::Duration;

use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, acme};

const SOON: Duration = Duration::from_secs(60);
/// The number of takeovers without a commit in between after which a job is parked.
const CRASHES: i32 = 5;

#[tokio::test]
async fn a_job_that_kills_five_workers_without_progress_is_parked_and_its_neighbour_succeeds() {
    let world = TestWorld::acme().await;
    let deadly = WorkerOptions::crash_at("retrieve_user", "after_intent");
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("deadly", &event)).await;
    // The first worker commits two stages before its crash, which is progress; the others only
    // crash.
    for _ in 0..=CRASHES {
        let mut worker = world.worker(&deadly);
        assert!(!worker.wait_exit(SOON).await.success());
    }
    let _worker = world.worker(&WorkerOptions::default());
    let parked = world.wait_job_state("deadly", JobState::Parked, SOON).await;
    assert_eq!(
        (
            parked.error_code.as_deref(),
            parked.crash_count,
            parked.stage.as_str()
        ),
        (Some("crash_loop"), CRASHES, "retrieve_user")
    );
    assert!(
        parked.error_hint.is_some(),
        "the row has a hint for a person"
    );
    let event = world.assign(acme::LONE_ITEM, Some(acme::BOB)).await;
    world.publish_job(&acme::job("neighbour", &event)).await;
    world
        .wait_job_state("neighbour", JobState::Succeeded, SOON)
        .await;
    Checks::default().hold(&world).await;
}
