//! A replica that is frozen and resumes after another one has taken over its jobs.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use rustix::process::Signal;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_job_of_a_frozen_replica_is_completed_by_another_and_unchanged_when_it_thaws() {
    let world = TestWorld::acme().await;
    let frozen = world.worker(&WorkerOptions::default());
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Slow).millis(1500))
        .await;
    frozen.signal(Signal::STOP);
    let other = world.worker(&WorkerOptions::default());
    let job = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert!(job.epoch > 1 && job.crash_count == 0, "{job:?}");
    assert!(
        other.metrics().await.contains("dispatch_takeovers_total 1"),
        "the job was taken over"
    );

    frozen.signal(Signal::CONT);
    wait_for(
        "the thawed process to begin a new incarnation",
        SOON,
        async || match world
            .database
            .one("SELECT count(*) FROM replicas")
            .await
            .as_str()
        {
            "3" => Ok(()),
            some => Err(format!("{some} incarnations")),
        },
    )
    .await;
    frozen.ready().await;
    other.kill9().await;
    let event = world.assign(acme::LONE_ITEM, Some(acme::BOB)).await;
    world.publish_job(&acme::job("two", &event)).await;
    world.wait_job_state("two", JobState::Succeeded, SOON).await;
    world.wait_quiet(SOON).await;
    let after_it = "SELECT min(c.epoch) FROM checkpoints c JOIN jobs j ON j.id = c.job_id
        WHERE j.dedupe_key = 'one' AND c.stage NOT IN ('check_account', 'fetch_states')";
    assert_ne!(
        world.database.one(after_it).await,
        "1",
        "all stages after the freeze ran on the other replica"
    );
    Checks::default().hold(&world).await;
}
