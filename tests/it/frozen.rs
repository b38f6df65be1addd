//! A replica that is frozen, and goes on when its work is another's.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use rustix::process::Signal;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn its_job_is_done_by_another_and_it_touches_nothing_when_it_thaws() {
    let world = TestWorld::acme().await;
    let frozen = world.worker(&WorkerOptions::default());
    world.publish_held_up("one", FaultRule::new(FaultKind::Slow).millis(1500)).await;
    frozen.signal(Signal::STOP);
    let other = world.worker(&WorkerOptions::default());
    let job = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert!(job.epoch > 1 && job.crash_count == 0, "{job:?}");
    assert!(other.metrics().await.contains("dispatch_takeovers_total 1"), "it was taken over");

    frozen.signal(Signal::CONT);
    wait_for("the one that was frozen to begin anew", SOON, async || {
        match world.database.one("SELECT count(*) FROM replicas").await.as_str() {
            "3" => Ok(()),
            some => Err(format!("{some} incarnations")),
        }
    })
    .await;
    frozen.ready().await;
    other.kill9().await;
    let event = world.assign(acme::LONE_ITEM, Some(acme::BOB)).await;
    world.publish_job(&acme::job("two", &event)).await;
    world.wait_job_state("two", JobState::Succeeded, SOON).await;
    world.wait_quiet(SOON).await;
    let after_it = "SELECT min(c.epoch) FROM checkpoints c JOIN jobs j ON j.id = c.job_id
        WHERE j.dedupe_key = 'one' AND c.stage NOT IN ('check_account', 'fetch_states')";
    assert_ne!(world.database.one(after_it).await, "1", "what came after the freeze is the other's");
    Checks::default().hold(&world).await;
}
