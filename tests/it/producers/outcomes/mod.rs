//! Outcome events for producers: on `dispatch.events` and at `reply_to`.

mod follow_ups;
mod replies;
mod skipped;
mod waits;

use std::time::Duration;

use dispatch_worker::broker::{KEY_CANCEL, Outgoing};
use dispatch_worker::job::JobState;
use serde_json::json;

use crate::support::{Listener, TestWorld, WorkerOptions, acme, intake, wait_for};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_success_of_a_job_is_announced_at_its_reply_queue_and_on_the_event_exchange() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("answers", None).await;
    listener.queue("watch", Some("job.#")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let message = intake(acme::job("one", &event).to_string());
    let (reply_to, correlation_id) = (Some("answers".to_owned()), Some("c-17".to_owned()));
    world
        .publish_raw(&Outgoing {
            reply_to,
            correlation_id,
            ..message
        })
        .await;
    for (event, state) in [("job.accepted", "running"), ("job.succeeded", "succeeded")] {
        let (correlation_id, answer) = listener.next("answers").await;
        assert_eq!(correlation_id.as_deref(), Some("c-17"));
        let job = world.job_by_key("one").await.unwrap();
        assert_eq!(
            (&answer["event"], &answer["state"]),
            (&json!(event), &json!(state)),
            "{answer}"
        );
        assert_eq!(
            (&answer["schema"], &answer["job_id"]),
            (&json!(1), &json!(job.id.to_string()))
        );
        assert_eq!(
            (&answer["source"], &answer["dedupe_key"]),
            (&json!(acme::SOURCE), &json!("one"))
        );
        assert_eq!(
            listener.next("watch").await.1,
            answer,
            "both places have the same event"
        );
    }
    world.wait_quiet(SOON).await;
}

#[tokio::test]
async fn a_job_without_an_account_announces_the_choices_and_its_cancel_is_announced() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.#")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let message = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "two", "organization": "acme", "identity": "bot"});
    world.publish_job(&message).await;
    assert_eq!(listener.next("watch").await.1["event"], "job.accepted");
    let (_, waiting) = listener.next("watch").await;
    assert_eq!(waiting["event"], "job.waiting.configuration");
    assert_eq!(
        (&waiting["state"], &waiting["reason"]),
        (&json!("waiting"), &json!("configuration"))
    );
    let choices = waiting["configuration"]["choices"].as_array().unwrap();
    assert_eq!(choices[0]["account_id"], acme::account_id(), "{waiting}");
    let cancel = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "two"}).to_string();
    world
        .publish_raw(&Outgoing {
            routing_key: KEY_CANCEL.to_owned(),
            ..intake(cancel)
        })
        .await;
    assert_eq!(listener.next("watch").await.1["event"], "job.cancelled");
    world.wait_job_state("two", JobState::Cancelled, SOON).await;
    assert_eq!(
        world
            .database
            .one("SELECT action || ' by ' || role FROM audit_log")
            .await,
        "cancel by producer"
    );
}

#[tokio::test]
async fn a_job_for_later_or_for_a_newer_worker_is_announced_as_accepted() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.#")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut later = acme::job("later", &json!({}));
    later["not_before"] = acme::later();
    world.publish_job(&later).await;
    let (_, accepted) = listener.next("watch").await;
    assert_eq!(
        (&accepted["event"], &accepted["state"]),
        (&json!("job.accepted"), &json!("ready"))
    );
    let newer =
        json!({"schema": 2, "source": acme::SOURCE, "dedupe_key": "newer", "organization": "acme"});
    world.publish_job(&newer).await;
    let (_, accepted) = listener.next("watch").await;
    assert_eq!(
        (&accepted["event"], &accepted["reason"]),
        (&json!("job.accepted"), &json!("version"))
    );
    let (_, waiting) = listener.next("watch").await;
    assert_eq!(
        (&waiting["event"], &waiting["wait_key"]),
        (&json!("job.waiting.version"), &json!("schema:2"))
    );
    world.wait_quiet(SOON).await;
}

#[tokio::test]
async fn a_cancel_that_arrives_before_its_job_cancels_the_job_when_it_arrives() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("answers", None).await;
    let _worker = world.worker(&WorkerOptions::default());
    let cancel = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "four"}).to_string();
    for _ in 0..2 {
        world
            .publish_raw(&Outgoing {
                routing_key: KEY_CANCEL.to_owned(),
                ..intake(cancel.clone())
            })
            .await;
    }
    wait_for("the cancel to be stored", SOON, async || {
        let noted =
            "SELECT count(*) FROM job_keys WHERE job_id IS NULL AND cancelled_by IS NOT NULL";
        if world.database.one(noted).await == "1" {
            Ok(())
        } else {
            Err("it is not stored")
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
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let message = intake(acme::job("four", &event).to_string());
    let message = Outgoing {
        reply_to: Some("answers".to_owned()),
        ..message
    };
    world.publish_raw(&message).await;
    for event in ["job.accepted", "job.cancelled"] {
        let (_, answer) = listener.next("answers").await;
        assert_eq!(
            (&answer["event"], &answer["state"]),
            (&json!(event), &json!("cancelled"))
        );
    }
    let job = world
        .wait_job_state("four", JobState::Cancelled, SOON)
        .await;
    assert!(job.finished_at.is_some());
    // The same message again refers to the same job: the cancel was for one job, and is used up.
    world.publish_raw(&message).await;
    assert_eq!(listener.next("answers").await.1["event"], "job.cancelled");
    world.wait_quiet(SOON).await;
    assert_eq!(world.database.one("SELECT count(*) FROM jobs").await, "1");
    assert_eq!(
        world.database.one("SELECT count(*) FROM checkpoints").await,
        "0",
        "no stage has run"
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) || ' by ' || min(role) FROM audit_log")
            .await,
        "1 by producer"
    );
}

#[tokio::test]
async fn a_refused_message_is_announced_with_the_id_of_its_dead_letter() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("#")).await;
    listener.queue("refused", Some("message.refused")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let body = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "of nobody"}).to_string();
    world
        .publish_raw(&Outgoing {
            message_id: Some("m-17".to_owned()),
            ..intake(body)
        })
        .await;
    let (_, received) = listener.next("watch").await;
    let kept = world
        .database
        .rows("SELECT id, code, detail FROM dead_letters")
        .await
        .concat();
    assert_eq!(kept[1..], ["missing_field", "`organization` is required"]);
    let number: i64 = kept[0].parse().unwrap();
    let right = json!({
        "event": "message.refused", "schema": 1, "source": acme::SOURCE, "dedupe_key": "of nobody", "message_id": "m-17",
        "code": kept[1], "detail": kept[2], "dead_letter_id": number, "at": received["at"], "producer": received["producer"]
    });
    assert_eq!(received, right);
    assert!(
        received["at"].is_string() && received["producer"].is_string(),
        "{received}"
    );
    assert_eq!(
        listener.next("refused").await.1,
        received,
        "with a routing key of its own"
    );
    world.wait_quiet(SOON).await;
    assert!(
        listener.try_next("watch").await.is_none(),
        "announced once, without an event of a job"
    );
}
