//! What a job skipped, in its last event.

use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::job::JobState;
use serde_json::json;

use super::SOON;
use crate::support::{Listener, TestWorld, WorkerOptions, acme};

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
