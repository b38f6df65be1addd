//! Duties of a replica: they find jobs that no message refers to.

use std::time::Duration;

use dispatch_worker::devkit::simulator::admin::TokenChange;
use dispatch_worker::job::{JobId, JobState};
use rustix::process::Signal;
use serde_json::json;

use crate::engine::wake_ups::{later, wake};
use crate::support::{Checks, Listener, TestWorld, WorkerOptions, acme, gate, wait_for};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_running_job_that_its_live_owner_does_not_have_in_hand_becomes_due_again_and_succeeds() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    later(&world, "one").await;
    // As after a claim whose answer was lost; the claim has consumed the only wake-up.
    let claimed = "UPDATE jobs SET state = 'running', epoch = 1, due_at = now(), woken_at = now(),
        owner = (SELECT id FROM replicas WHERE ended_at IS NULL)";
    world.database.rows(claimed).await;
    let job = world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert_eq!(
        (job.epoch, job.crash_count),
        (3, 0),
        "freed and claimed once, without a crash"
    );
    assert_eq!(
        world.database.one("SELECT count(*) FROM replicas").await,
        "1",
        "the same replica continues"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_waiting_job_whose_deadline_passes_is_parked_and_announced() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.parked")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let expired = TokenChange {
        token: acme::TOKEN.to_owned(),
        expired: Some(true),
        ..TokenChange::default()
    };
    world
        .simulator()
        .await
        .client
        .token(&expired)
        .await
        .unwrap();
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let waiting = world.wait_job_state("one", JobState::Waiting, SOON).await;
    world
        .database
        .rows("UPDATE jobs SET deadline = now() - interval '1 second'")
        .await;
    let parked = world.wait_job_state("one", JobState::Parked, SOON).await;
    assert_eq!(
        (parked.error_code.as_deref(), parked.wait_reason),
        (Some("deadline_exceeded"), None)
    );
    assert_eq!(parked.epoch, waiting.epoch + 1, "an older claim is fenced");
    assert!(
        parked.error_hint.is_some_and(|hint| !hint.is_empty()),
        "the hint is not empty"
    );
    let (_, event) = listener.next("watch").await;
    assert_eq!(
        (&event["job_id"], &event["code"]),
        (&json!(parked.id), &json!("deadline_exceeded"))
    );
    Checks {
        attempts: &[("retrieve_user", "reauthentication")],
    }
    .hold(&world)
    .await;
}

/// Shorter than the time that a commit may wait at the gate.
const TAKEN_BACK_WITHIN: Duration = Duration::from_secs(15);
/// Wake-ups in the queue behind a job that holds the only permit.
const BEHIND: usize = 20;

#[tokio::test]
async fn a_stamp_of_a_dead_replica_is_taken_back_while_its_lane_s_queue_holds_messages() {
    let world = TestWorld::acme().await;
    let dead = world.worker(&WorkerOptions::default());
    let (stamped, busy) = (later(&world, "stamped").await, later(&world, "busy").await);
    // The dead worker stamped one row a minute ago and never published the wake-up. The queue is
    // never empty: the other job's wake-up is the first of many, and that job holds the only
    // permit. A stamp older than ten minutes would be taken back regardless of its replica.
    dead.signal(Signal::STOP);
    let stamps = format!(
        "UPDATE jobs SET due_at = now(), woken_by = (SELECT id FROM replicas),
            woken_at = CASE id WHEN '{stamped}' THEN now() - interval '1 minute' ELSE now() END"
    );
    world.database.rows(&stamps).await;
    dead.kill9().await;
    wake(&world, "dispatch", busy).await;
    for _ in 0..BEHIND {
        wake(&world, "dispatch", JobId::fresh()).await;
    }
    gate::shut(&world.database, "check_account").await;
    let _other = world.worker(&WorkerOptions {
        concurrency: Some(1),
        ..WorkerOptions::default()
    });
    gate::at_it(&world.database, None).await;
    wait_for(
        "the stamp to be taken back",
        TAKEN_BACK_WITHIN,
        async || {
            let still =
                "SELECT count(*) FROM jobs WHERE dedupe_key = 'stamped' AND woken_at IS NOT NULL
            AND woken_by = (SELECT min(id) FROM replicas)";
            if world.database.one(still).await == "0" {
                Ok(())
            } else {
                Err("it is still there")
            }
        },
    )
    .await;
    let depth = world
        .publisher()
        .await
        .depth("dispatch.wake")
        .await
        .unwrap();
    assert!(depth.ready > 0, "the queue is not empty: {depth:?}");
    gate::open(&world.database).await;
    for key in ["busy", "stamped"] {
        world.wait_job_state(key, JobState::Succeeded, SOON).await;
    }
    Checks::default().hold(&world).await;
}
