//! Duties of a replica: it finds jobs that no message points to.

use std::time::Duration;

use dispatch_worker::devkit::simulator::admin::TokenChange;
use dispatch_worker::job::JobState;
use serde_json::json;

use crate::engine_wake_ups::later;
use crate::support::{Checks, Listener, TestWorld, WorkerOptions, acme};

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
    assert_eq!((job.epoch, job.crash_count), (3, 0), "freed, claimed once, and no crash");
    assert_eq!(world.database.one("SELECT count(*) FROM replicas").await, "1", "the replica has gone on");
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_waiting_job_whose_deadline_passes_is_parked_and_announced() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.parked")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let expired = TokenChange { token: acme::TOKEN.to_owned(), expired: Some(true), ..TokenChange::default() };
    world.simulator().await.client.token(&expired).await.unwrap();
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let waiting = world.wait_job_state("one", JobState::Waiting, SOON).await;
    world.database.rows("UPDATE jobs SET deadline = now() - interval '1 second'").await;
    let parked = world.wait_job_state("one", JobState::Parked, SOON).await;
    assert_eq!((parked.error_code.as_deref(), parked.wait_reason), (Some("deadline_exceeded"), None));
    assert_eq!(parked.epoch, waiting.epoch + 1, "an older claim is fenced");
    assert!(parked.error_hint.is_some_and(|hint| !hint.is_empty()), "a person reads what to do");
    let (_, event) = listener.next("watch").await;
    assert_eq!((&event["job_id"], &event["code"]), (&json!(parked.id), &json!("deadline_exceeded")));
    Checks { attempts: &[("retrieve_user", "reauthentication")] }.hold(&world).await;
}
