//! The pause: no stage starts, nothing is lost.

use dispatch_worker::job::JobState;

use super::{SOON, control};
use crate::support::{TestWorld, WorkerOptions, acme, wait_for};

#[tokio::test]
async fn a_pause_under_load_survives_a_killed_worker_and_resumes_every_job() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    for number in 0..10 {
        world
            .publish_job(&acme::job(&format!("before-{number}"), &event))
            .await;
    }
    control(&world, "pause").await;
    worker.kill9().await;
    let worker = world.worker(&WorkerOptions::default());
    for number in 0..5 {
        world
            .publish_job(&acme::job(&format!("after-{number}"), &event))
            .await;
    }
    let moving = "SELECT count(*) FILTER (WHERE dedupe_key LIKE 'after-%' AND wait_key = 'hold:all' AND attempt = 1),
        count(*) FILTER (WHERE state IN ('ready', 'running')) FROM jobs";
    wait_for("every job to stop", SOON, async || {
        let rows = world.database.rows(moving).await;
        if rows == [["5", "0"]] {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await;
    worker.ready().await;
    let said = world
        .dispatch(&[
            "jobs",
            "explain",
            "--source",
            acme::SOURCE,
            "--key",
            "after-0",
        ])
        .said()
        .await;
    assert!(
        said.stdout.contains("olga has paused all jobs until"),
        "{said:?}"
    );
    control(&world, "resume").await;
    for key in ["before", "after"] {
        let jobs = if key == "before" { 10 } else { 5 };
        for number in 0..jobs {
            world
                .wait_job_state(&format!("{key}-{number}"), JobState::Succeeded, SOON)
                .await;
        }
    }
}
