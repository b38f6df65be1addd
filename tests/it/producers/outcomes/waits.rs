//! The events of a job that waits.

use dispatch_worker::devkit::simulator::admin::TokenChange;
use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use super::SOON;
use crate::support::{Listener, TestWorld, WorkerOptions, acme};

/// Publishes a job that retrieves its user and changes nothing.
async fn publish(world: &TestWorld, key: &str) {
    let mut message = acme::job(key, &Value::Null);
    (message["events"], message["notify"]) = (json!([]), json!([]));
    world.publish_job(&message).await;
}

/// Asserts that the job is accepted and waits and that both are announced, the latter with a
/// routing key for its reason.
async fn is_announced_with(world: &TestWorld, listener: &Listener, key: &str, reason: &str) {
    assert_eq!(listener.next("watch").await.1["event"], "job.accepted");
    let (_, received) = listener.next("watch").await;
    let job = world.job_by_key(key).await.unwrap();
    assert_eq!(
        (job.state, job.wait_reason.as_deref()),
        (JobState::Waiting, Some(reason))
    );
    let event = format!("job.waiting.{reason}");
    assert_eq!(
        (&received["event"], &received["job_id"]),
        (&json!(event), &json!(job.id)),
        "{received}"
    );
    assert_eq!(
        (&received["source"], &received["dedupe_key"]),
        (&json!(acme::SOURCE), &json!(key)),
        "{received}"
    );
    assert_eq!(
        (&received["state"], &received["reason"]),
        (&json!("waiting"), &json!(reason)),
        "{received}"
    );
    assert!(
        received["wait_key"].is_string() && received["wait_key"] == json!(job.wait_key),
        "{received}"
    );
    let error =
        json!({"code": job.error_code, "message": job.error_message, "hint": job.error_hint});
    assert!(
        error["code"].is_string() && received["error"] == error,
        "the error that made it wait: {received}"
    );
    assert_eq!(
        listener.next(&event).await.1,
        received,
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
    is_announced_with(&world, &listener, "held", "hold").await;
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

    let switch = |verb| world.switch_account(verb);
    switch("disable").done().await;
    publish(&world, "switched off").await;
    is_announced_with(&world, &listener, "switched off", "installation_disabled").await;
    switch("enable").done().await;
    assert_eq!(listener.next("watch").await.1["event"], "job.succeeded");

    let ended = TokenChange {
        token: acme::TOKEN.to_owned(),
        expired: Some(true),
        ..TokenChange::default()
    };
    world.simulator().await.client.token(&ended).await.unwrap();
    publish(&world, "signed out").await;
    is_announced_with(&world, &listener, "signed out", "reauthentication").await;
    world.wait_quiet(SOON).await;
    for queue in keys.iter().map(String::as_str).chain(["watch"]) {
        assert!(
            listener.try_next(queue).await.is_none(),
            "{queue} receives no more"
        );
    }
}
