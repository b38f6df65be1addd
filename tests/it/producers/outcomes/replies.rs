//! Replies at `reply_to`: undeliverable ones, refused ones, and those to repeated messages.

use dispatch_worker::broker::Outgoing;
use serde_json::json;

use super::SOON;
use crate::support::{Listener, TestWorld, WorkerOptions, acme, intake, wait_for};

#[tokio::test]
async fn an_undeliverable_reply_and_one_to_a_worker_s_queue_stop_nothing() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.succeeded")).await;
    let _worker = world.worker(&WorkerOptions::default());
    for (key, queue) in [("gone", "no-such-queue"), ("own", "dispatch.jobs")] {
        let event = world.assign(acme::LONE_ITEM, None).await;
        let message = intake(acme::job(key, &event).to_string());
        world
            .publish_raw(&Outgoing {
                reply_to: Some(queue.to_owned()),
                ..message
            })
            .await;
        assert_eq!(listener.next("watch").await.1["dedupe_key"], key);
    }
    world.wait_quiet(SOON).await;
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await,
        "0",
        "no reply comes back as intake"
    );
}

#[tokio::test]
async fn a_reply_that_its_queue_refuses_is_retried_for_an_hour_and_its_event_is_published_once() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.full_queue("full", None).await;
    listener.queue("watch", Some("job.succeeded")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, None).await;
    let message = intake(acme::job("one", &event).to_string());
    world
        .publish_raw(&Outgoing {
            reply_to: Some("full".to_owned()),
            ..message
        })
        .await;
    assert_eq!(listener.next("watch").await.1["dedupe_key"], "one");
    wait_for(
        "both events to be published and their replies to be left",
        SOON,
        async || {
            let left = world
                .database
                .one("SELECT count(*) FROM announcements WHERE reply_only")
                .await;
            if left == "2" { Ok(()) } else { Err(left) }
        },
    )
    .await;
    world.database.rows("UPDATE announcements SET created_at = now() - interval '2 hours', publish_after = now()").await;
    world.wait_quiet(SOON).await;
    assert!(
        listener.try_next("watch").await.is_none(),
        "the event was published once"
    );
}

#[tokio::test]
async fn a_repeated_message_is_answered_with_the_state_of_its_job_and_causes_no_second_event() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.#")).await;
    for queue in ["first", "second", "third"] {
        listener.queue(queue, None).await;
    }
    let _worker = world.worker(&WorkerOptions::default());
    let body = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "three", "organization": "acme", "identity": "bot"});
    let send = async |queue: &str| {
        let reply_to = Some(queue.to_owned());
        world
            .publish_raw(&Outgoing {
                reply_to,
                correlation_id: Some(queue.to_owned()),
                ..intake(body.to_string())
            })
            .await;
    };
    send("first").await;
    for event in ["job.accepted", "job.waiting.configuration"] {
        assert_eq!(listener.next("first").await.1["event"], event);
    }
    send("second").await;
    let (correlation_id, answer) = listener.next("second").await;
    assert_eq!(correlation_id.as_deref(), Some("second"));
    assert_eq!(answer["event"], "job.waiting.configuration", "{answer}");
    assert!(answer["configuration"]["choices"].is_array(), "{answer}");
    let job = world.job_by_key("three").await.unwrap().id;
    world.publish_configure(job, &acme::account_id()).await;
    assert_eq!(
        listener.next("second").await.1["event"],
        "job.succeeded",
        "later events go to the latest reply queue"
    );
    send("third").await;
    let (_, answer) = listener.next("third").await;
    assert_eq!(
        (&answer["event"], &answer["job_id"]),
        (&json!("job.succeeded"), &json!(job))
    );
    world.wait_quiet(SOON).await;
    let mut events = Vec::new();
    while let Some((_, event)) = listener.try_next("watch").await {
        events.push(event["event"].as_str().unwrap().to_owned());
    }
    assert_eq!(
        events,
        ["job.accepted", "job.waiting.configuration", "job.succeeded"]
    );
    for queue in ["first", "second", "third"] {
        assert!(
            listener.try_next(queue).await.is_none(),
            "{queue} receives no more"
        );
    }
}
