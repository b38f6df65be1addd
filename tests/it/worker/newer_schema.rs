//! A job of a schema that no worker supports yet waits with a sealed payload; a worker that
//! supports the schema runs it.

use std::time::Duration;

use dispatch_worker::broker::Outgoing;
use dispatch_worker::job::JobState;
use dispatch_worker::secrets::Place;
use serde_json::{Value, json};

use crate::support::{Checks, TestWorld, WorkerOptions, acme, intake};

const SOON: Duration = Duration::from_secs(30);
/// A schema that workers do not support yet.
const LATER: i64 = 2;
/// The last attempts of the jobs that are parked.
const ATTEMPTS: &[(&str, &str)] = &[
    ("check_account", "deadline_exceeded"),
    ("check_account", "unreadable_payload"),
];

/// Lets a worker accept a message whose source and key are AMQP properties, then changes its row
/// to that of a worker that does not support schema 1: only the number of the schema differs.
pub(crate) async fn left_by_an_older_worker(world: &TestWorld, key: &str, message: &Value) {
    let mut message = message.clone();
    let fields = message.as_object_mut().unwrap();
    fields.remove("source");
    fields.remove("dedupe_key");
    message["schema"] = json!(LATER);
    let beside = Outgoing {
        app_id: Some(acme::SOURCE.to_owned()),
        message_id: Some(key.to_owned()),
        ..intake(message.to_string())
    };
    world.publish_raw(&beside).await;
    let row = world.wait_job_state(key, JobState::Waiting, SOON).await;
    assert_eq!(row.wait_reason.as_deref(), Some("version"), "{row:?}");
    message["schema"] = json!(1);
    let id = row.id.to_string();
    let place = Place {
        table: "jobs",
        column: "sealed_payload",
        row: &id,
    };
    let sealed = world.keyring.seal(place, message.to_string().as_bytes());
    let sql = format!(
        "UPDATE jobs SET schema = 1, wait_key = 'schema:1', sealed_payload = '{sealed}', organization = 'as it was said then'
         WHERE id = '{id}'"
    );
    world.database.rows(&sql).await;
}

#[tokio::test]
async fn a_worker_runs_jobs_that_an_older_worker_sealed_because_of_their_schema() {
    let world = TestWorld::acme().await;
    let older = world.worker(&WorkerOptions::default());
    let message = acme::job("-", &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await);
    left_by_an_older_worker(&world, "right", &message).await;
    let with = |field: &str, value: Value| {
        let mut message = message.clone();
        message[field] = value;
        message
    };
    left_by_an_older_worker(
        &world,
        "too late",
        &with("deadline", json!("2001-01-01T00:00:00Z")),
    )
    .await;
    left_by_an_older_worker(&world, "not yet", &with("not_before", acme::later())).await;
    left_by_an_older_worker(
        &world,
        "not of that schema",
        &with("priority", json!("high")),
    )
    .await;
    older.kill9().await;

    let _worker = world.worker(&WorkerOptions::default());
    let right = world
        .wait_job_state("right", JobState::Succeeded, SOON)
        .await;
    assert_eq!(
        (right.organization.as_str(), right.attempt),
        ("acme", 1),
        "as if it had just arrived"
    );
    let assignee = "SELECT count(*) FROM group_assignees a JOIN issue_groups g ON g.id = a.group_id WHERE g.short_id = 'WEB-2'";
    assert_eq!(world.database.one(assignee).await, "1");
    for (key, code) in [
        ("too late", "deadline_exceeded"),
        ("not of that schema", "unreadable_payload"),
    ] {
        let row = world.wait_job_state(key, JobState::Parked, SOON).await;
        assert_eq!(row.error_code.as_deref(), Some(code), "{row:?}");
    }
    let later = world.wait_job_state("not yet", JobState::Ready, SOON).await;
    assert!(
        later.due_at > right.created_at + time::Duration::days(10),
        "{later:?}"
    );
    let sealed = world
        .database
        .rows("SELECT dedupe_key FROM jobs WHERE sealed_payload IS NOT NULL")
        .await;
    assert_eq!(sealed, [["not of that schema"]]);
    Checks { attempts: ATTEMPTS }.hold(&world).await;
}
