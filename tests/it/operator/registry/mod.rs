//! Commands that register, test, enable and disable accounts and destinations and rotate their
//! secrets.

mod accounts;
mod destinations;

use std::time::Duration;

use dispatch_worker::job::JobState;
use serde_json::json;

use crate::support::{Said, TestWorld, acme};

const SOON: Duration = Duration::from_secs(30);

/// Publishes a job about a new event with this shared secret and without notifications.
async fn publish(world: &TestWorld, key: &str, shared_secret: &str) {
    let event = world
        .assign(
            acme::LONE_ITEM,
            Some(if key.len().is_multiple_of(2) {
                acme::ANN
            } else {
                acme::BOB
            }),
        )
        .await;
    let mut message = acme::job(key, &event);
    message["events"][0]["shared_secret"] = json!(shared_secret);
    message["notify"] = json!([]);
    world.publish_job(&message).await;
}

/// Waits until a job succeeds. Returns how many of its events were accepted.
async fn accepted(world: &TestWorld, key: &str) -> usize {
    let job = world.wait_job_state(key, JobState::Succeeded, SOON).await;
    let view = world.job_view(job.id).await;
    let stage = view
        .checkpoints
        .iter()
        .find(|checkpoint| checkpoint.stage == "handle_events")
        .expect("the stage has run");
    stage.output["accepted"].as_array().expect("a list").len()
}

async fn audited(world: &TestWorld) -> Vec<String> {
    world
        .database
        .rows("SELECT action FROM audit_log ORDER BY id")
        .await
        .concat()
}

/// Returns everything that a command has printed.
fn printed(said: &Said) -> String {
    format!("{}{}", said.stdout, said.stderr)
}
