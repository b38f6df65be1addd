//! What producers are told: outcome events on `dispatch.events` and at `reply_to`.

use std::time::Duration;

use dispatch_worker::broker::{KEY_CANCEL, Outgoing};
use dispatch_worker::job::JobState;
use serde_json::json;

use crate::support::{Listener, TestWorld, WorkerOptions, acme, intake};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_producer_hears_at_its_reply_queue_and_on_the_event_exchange_that_its_job_has_succeeded() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("answers", None).await;
    listener.queue("watch", Some("job.#")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let message = intake(acme::job("one", &event).to_string());
    let (reply_to, correlation_id) = (Some("answers".to_owned()), Some("c-17".to_owned()));
    world.publish_raw(&Outgoing { reply_to, correlation_id, ..message }).await;
    let (correlation_id, answer) = listener.next("answers").await;
    assert_eq!(correlation_id.as_deref(), Some("c-17"));
    let job = world.job_by_key("one").await.unwrap();
    assert_eq!(answer["event"], "job.succeeded");
    assert_eq!(answer["job_id"], job.id.to_string());
    assert_eq!((&answer["source"], &answer["dedupe_key"]), (&json!(acme::SOURCE), &json!("one")));
    assert_eq!(listener.next("watch").await.1, answer, "the same event for whoever watches");
    world.wait_quiet(SOON).await;
}

#[tokio::test]
async fn a_job_without_an_account_answers_with_a_template_and_one_that_is_cancelled_says_so() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.#")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let message = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "two", "organization": "acme", "identity": "bot"});
    world.publish_job(&message).await;
    let (_, waiting) = listener.next("watch").await;
    assert_eq!(waiting["event"], "job.waiting.configuration");
    let choices = waiting["configuration"]["choices"].as_array().unwrap();
    assert_eq!(choices[0]["account_id"], acme::account_id(), "{waiting}");
    let cancel = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "two"}).to_string();
    world.publish_raw(&Outgoing { routing_key: KEY_CANCEL.to_owned(), ..intake(cancel) }).await;
    assert_eq!(listener.next("watch").await.1["event"], "job.cancelled");
    world.wait_job_state("two", JobState::Cancelled, SOON).await;
    assert_eq!(world.database.one("SELECT action || ' by ' || role FROM audit_log").await, "cancel by producer");
}

#[tokio::test]
async fn a_reply_that_nobody_takes_and_one_to_the_workers_own_queues_stop_nothing() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.succeeded")).await;
    let _worker = world.worker(&WorkerOptions::default());
    for (key, queue) in [("gone", "no-such-queue"), ("own", "dispatch.jobs")] {
        let event = world.assign(acme::LONE_ITEM, None).await;
        let message = intake(acme::job(key, &event).to_string());
        world.publish_raw(&Outgoing { reply_to: Some(queue.to_owned()), ..message }).await;
        assert_eq!(listener.next("watch").await.1["dedupe_key"], key);
    }
    world.wait_quiet(SOON).await;
    assert_eq!(world.database.one("SELECT count(*) FROM dead_letters").await, "0", "no reply has come back as intake");
}
