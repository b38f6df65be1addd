//! Jobs of a worker that ends: they are taken over if it is killed, and released if it drains.

use std::time::{Duration, Instant};

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// The guaranteed time of a takeover.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(5);
#[tokio::test]
async fn a_job_whose_worker_is_killed_mid_stage_is_taken_over_within_five_seconds() {
    let world = TestWorld::acme().await;
    let first = world.worker(&WorkerOptions::default());
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Hang))
        .await;
    let second = world.worker(&WorkerOptions::default());
    second.ready().await;
    first.kill9().await;
    let killed = Instant::now();
    wait_for("another owner", SOON, async || {
        let job = world.job_by_key("one").await.ok_or("no row")?;
        if job.epoch > 1 && job.state != JobState::Ready {
            Ok(())
        } else {
            Err("it has no owner or the dead one")
        }
    })
    .await;
    let took = killed.elapsed();
    assert!(took < TAKEN_OVER_WITHIN, "the takeover took {took:?}");
    let job = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    let stages = format!(
        "SELECT stage FROM checkpoints WHERE job_id = '{}' AND epoch = 1 ORDER BY finished_at",
        job.id
    );
    assert_eq!(
        world.database.rows(&stages).await.concat(),
        ["check_account", "fetch_states"],
        "these stages are not run again"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_draining_worker_finishes_its_stage_and_releases_the_job_with_a_wake_up() {
    let world = TestWorld::acme().await;
    let mut first = world.worker(&WorkerOptions::default());
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Slow).millis(1500))
        .await;
    first.terminate();
    let status = first.wait_exit(SOON).await;
    assert_eq!(status.code(), Some(0), "{status}");
    let job = world.job_by_key("one").await.unwrap();
    assert_eq!(
        (job.state, job.stage.as_str(), job.owner, job.attempt),
        (JobState::Ready, "get_accounts", None, 1)
    );
    assert!(job.woken_at.is_some(), "a wake-up is published");
    wait_for("the wake-up to be the only message", SOON, async || {
        let depth = world.queue_depth("dispatch.wake").await;
        if (depth.ready, depth.unacked) == (1, 0) {
            Ok(())
        } else {
            Err(format!("{depth:?}"))
        }
    })
    .await;
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM replicas WHERE ended_at IS NULL")
            .await,
        "0"
    );

    let _second = world.worker(&WorkerOptions::default());
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert_eq!(
        world
            .database
            .one("SELECT sum(crash_count) FROM jobs")
            .await,
        "0",
        "a drain is not a crash"
    );
    Checks::default().hold(&world).await;
}
