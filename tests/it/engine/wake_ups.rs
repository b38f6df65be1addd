//! Wake-ups: the row is the job, so a wake-up that is duplicated, lost or without a row never
//! loses or repeats work.

use std::time::Duration;

use dispatch_worker::broker::{Outgoing, WAKE};
use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::pipelines::registry;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, intake, wait_for};

const SOON: Duration = Duration::from_secs(30);

pub(crate) async fn wake(world: &TestWorld, pipeline: &str, job: JobId) {
    let routing_key = registry()
        .get(pipeline)
        .expect("a pipeline")
        .lane
        .wake_key
        .to_owned();
    world
        .publish_raw(&Outgoing {
            exchange: WAKE,
            routing_key,
            ..intake(json!({"job_id": job}).to_string())
        })
        .await;
}

/// Publishes a job with a later `not_before`, so that no worker claims it before it is woken.
pub(crate) async fn later(world: &TestWorld, key: &str) -> JobId {
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    let mut job = acme::job(key, &event);
    let not_before = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    job["not_before"] = json!(not_before.format(&Rfc3339).expect("a date of this century"));
    world.publish_job(&job).await;
    let row = world.wait_job_state(key, JobState::Ready, SOON).await;
    assert_eq!(
        (row.epoch, row.woken_at),
        (0, None),
        "the job has not been claimed or woken"
    );
    row.id
}

#[tokio::test]
async fn duplicate_messages_and_wake_ups_run_every_stage_once() {
    let world = TestWorld::acme().await;
    let _workers = [
        world.worker(&WorkerOptions::default()),
        world.worker(&WorkerOptions::default()),
    ];
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    for _ in 0..5 {
        world.publish_job(&acme::job("one", &event)).await;
    }
    let job = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    let view = world.job_view(job.id).await;
    for one in view.children.iter().chain([&view.row]) {
        for _ in 0..5 {
            wake(&world, &one.pipeline, one.id).await;
        }
    }
    Checks::default().hold(&world).await;
    let again = world.job_view(job.id).await;
    assert_eq!(
        (
            again.row.epoch,
            again.checkpoints.len(),
            again.children.len()
        ),
        (view.row.epoch, 10, 4)
    );
    assert_eq!(
        world.witness().iter().filter(|entry| entry.effect).count(),
        4
    );
}

#[tokio::test]
async fn simultaneous_wake_ups_claim_a_job_once() {
    let world = TestWorld::acme().await;
    let _workers = [
        world.worker(&WorkerOptions::default()),
        world.worker(&WorkerOptions::default()),
    ];
    let job = later(&world, "one").await;
    // Stamped as woken, so that the waker does not publish another wake-up.
    world
        .database
        .rows("UPDATE jobs SET due_at = now(), woken_at = now()")
        .await;
    for _ in 0..10 {
        wake(&world, "dispatch", job).await;
    }
    let row = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert_eq!(row.epoch, 1, "one claim");
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_lost_wake_up_is_published_again() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    later(&world, "one").await;
    // The state after a worker has published the wake-up and the broker has lost it.
    world
        .database
        .rows("UPDATE jobs SET due_at = now(), woken_at = now()")
        .await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_wake_up_without_a_row_is_acked_and_counted() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    for pipeline in ["dispatch", "assignee_sync", "messaging"] {
        wake(&world, pipeline, JobId::fresh()).await;
    }
    wait_for("the wake-ups to be counted", SOON, async || {
        let metrics = worker.metrics().await;
        if metrics.contains("dispatch_wakeups_without_row_total 3") {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    world.wait_quiet(SOON).await;
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await,
        "0"
    );
}
