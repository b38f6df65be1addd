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
