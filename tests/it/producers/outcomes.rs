//! Outcome events for producers: on `dispatch.events` and at `reply_to`.

use std::time::Duration;

use dispatch_worker::broker::{KEY_CANCEL, Outgoing};
use dispatch_worker::devkit::simulator::admin::TokenChange;
use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::job::JobState;
use serde_json::{Value, json};

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
    let (_, heard) = listener.next("watch").await;
    let kept = world
        .database
        .rows("SELECT id, code, detail FROM dead_letters")
        .await
        .concat();
    assert_eq!(kept[1..], ["missing_field", "`organization` is required"]);
    let number: i64 = kept[0].parse().unwrap();
    let right = json!({
        "event": "message.refused", "schema": 1, "source": acme::SOURCE, "dedupe_key": "of nobody", "message_id": "m-17",
        "code": kept[1], "detail": kept[2], "dead_letter_id": number, "at": heard["at"], "producer": heard["producer"]
    });
    assert_eq!(heard, right);
    assert!(
        heard["at"].is_string() && heard["producer"].is_string(),
        "{heard}"
    );
    assert_eq!(
        listener.next("refused").await.1,
        heard,
        "with a routing key of its own"
    );
    world.wait_quiet(SOON).await;
    assert!(
        listener.try_next("watch").await.is_none(),
        "announced once, without an event of a job"
    );
}

/// Publishes a job that retrieves its user and changes nothing.
async fn publish(world: &TestWorld, key: &str) {
    let mut message = acme::job(key, &Value::Null);
    (message["events"], message["notify"]) = (json!([]), json!([]));
    world.publish_job(&message).await;
}

/// Asserts that the job is accepted and waits and that both are announced, the latter with a
/// routing key for its reason.
async fn hears_why_it_waits(world: &TestWorld, listener: &Listener, key: &str, reason: &str) {
    assert_eq!(listener.next("watch").await.1["event"], "job.accepted");
    let (_, heard) = listener.next("watch").await;
    let job = world.job_by_key(key).await.unwrap();
    assert_eq!(
        (job.state, job.wait_reason.as_deref()),
        (JobState::Waiting, Some(reason))
    );
    let event = format!("job.waiting.{reason}");
    assert_eq!(
        (&heard["event"], &heard["job_id"]),
        (&json!(event), &json!(job.id)),
        "{heard}"
    );
    assert_eq!(
        (&heard["source"], &heard["dedupe_key"]),
        (&json!(acme::SOURCE), &json!(key)),
        "{heard}"
    );
    assert_eq!(
        (&heard["state"], &heard["reason"]),
        (&json!("waiting"), &json!(reason)),
        "{heard}"
    );
    assert!(
        heard["wait_key"].is_string() && heard["wait_key"] == json!(job.wait_key),
        "{heard}"
    );
    let error =
        json!({"code": job.error_code, "message": job.error_message, "hint": job.error_hint});
    assert!(
        error["code"].is_string() && heard["error"] == error,
        "the error that made it wait: {heard}"
    );
    assert_eq!(
        listener.next(&event).await.1,
        heard,
        "with a routing key of its own"
    );
}

#[tokio::test]
async fn a_waiting_job_is_announced_with_its_cause() {
    const SCOPE: &str = "acme|azure_devops|127.0.0.1";
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("#")).await;
    let keys = ["hold", "installation_disabled", "reauthentication"]
        .map(|reason| format!("job.waiting.{reason}"));
    for key in &keys {
        listener.queue(key, Some(key)).await;
    }
    // Before the worker starts: a running worker would learn of the hold a moment later.
    world
        .dispatch(&["holds", "place", SCOPE, "--reason", "maintenance", "--yes"])
        .done()
        .await;
    let _worker = world.worker(&WorkerOptions::default());
    publish(&world, "held").await;
    hears_why_it_waits(&world, &listener, "held", "hold").await;
    world
        .dispatch(&[
            "holds",
            "release",
            SCOPE,
            "--reason",
            "maintenance is over",
            "--yes",
        ])
        .done()
        .await;
    assert_eq!(listener.next("watch").await.1["event"], "job.succeeded");

    let account = acme::account_id();
    let switch = |verb| {
        world.dispatch(&[
            "integrations",
            verb,
            &account,
            "--organization",
            "acme",
            "--yes",
        ])
    };
    switch("disable").done().await;
    publish(&world, "switched off").await;
    hears_why_it_waits(&world, &listener, "switched off", "installation_disabled").await;
    switch("enable").done().await;
    assert_eq!(listener.next("watch").await.1["event"], "job.succeeded");

    let ended = TokenChange {
        token: acme::TOKEN.to_owned(),
        expired: Some(true),
        ..TokenChange::default()
    };
    world.simulator().await.client.token(&ended).await.unwrap();
    publish(&world, "signed out").await;
    hears_why_it_waits(&world, &listener, "signed out", "reauthentication").await;
    world.wait_quiet(SOON).await;
    for queue in keys.iter().map(String::as_str).chain(["watch"]) {
        assert!(
            listener.try_next(queue).await.is_none(),
            "{queue} receives no more"
        );
    }
}

/// A work item that no group is linked to.
const UNLINKED: i64 = 40;

#[tokio::test]
async fn a_job_reports_what_it_skipped_as_counts_in_its_last_event_and_in_jobs_show() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.succeeded")).await;
    let unlinked = State::new().bug(acme::ACCOUNT, acme::PROJECT, UNLINKED, "Nobody's", None);
    world
        .simulator()
        .await
        .client
        .merge_state(&unlinked)
        .await
        .unwrap();
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(UNLINKED, Some(acme::ANN)).await;
    let mut commented = event.clone();
    (commented["id"], commented["eventType"]) = (json!("another"), json!("workitem.commented"));
    let mut message = acme::job("ignored", &commented);
    let forged = json!({"payload": event, "shared_secret": "canary-guess"});
    let events = message["events"].as_array_mut().unwrap();
    events.extend([forged.clone(), forged]);
    world.publish_job(&message).await;
    let (_, succeeded) = listener.next("watch").await;
    let ignored = json!({"events": {"bad_secret": 2, "unsupported_event_type": 1}});
    assert_eq!(
        (&succeeded["dedupe_key"], &succeeded["skipped"]),
        (&json!("ignored"), &ignored),
        "{succeeded}"
    );
    let show = ["jobs", "show", "--source", acme::SOURCE, "--key", "ignored"];
    assert_eq!(world.dispatch(&show).done().await["skipped"], ignored);
    let page = world.dispatch(&show).said().await.stdout;
    assert!(
        page.contains("events: 2 bad_secret, 1 unsupported_event_type"),
        "{page}"
    );

    // Two stages skip something, each of its own kind.
    let mut message = acme::job("unlinked", &event);
    message["events"]
        .as_array_mut()
        .unwrap()
        .push(json!({"payload": event, "shared_secret": acme::HOOK_SECRET}));
    world.publish_job(&message).await;
    let (_, succeeded) = listener.next("watch").await;
    assert_eq!(
        succeeded["skipped"],
        json!({"events": {"duplicate": 1}, "assignments": {"not_linked": 1}}),
        "{succeeded}"
    );

    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("all done", &event)).await;
    let (_, succeeded) = listener.next("watch").await;
    assert_eq!(
        (&succeeded["dedupe_key"], succeeded.get("skipped")),
        (&json!("all done"), None),
        "{succeeded}"
    );
}

#[tokio::test]
async fn a_job_that_begins_again_has_skipped_nothing() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.succeeded")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let message = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "two", "organization": "acme", "identity": "bot"});
    world.publish_job(&message).await;
    let job = world
        .wait_job_state("two", JobState::Waiting, SOON)
        .await
        .id;
    let before = r#"UPDATE jobs SET skipped = '{"events": {"duplicate": 1}}'"#;
    world.database.rows(before).await;
    world.publish_configure(job, &acme::account_id()).await;
    let (_, succeeded) = listener.next("watch").await;
    assert_eq!(
        (&succeeded["job_id"], succeeded.get("skipped")),
        (&json!(job), None),
        "{succeeded}"
    );
}
