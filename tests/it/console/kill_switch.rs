//! A kill switch in the console: the dry run first, then the same conditions, then its end.

use dispatch_worker::job::JobState;
use dispatch_worker::store::Role;
use reqwest::Method;
use reqwest::header::COOKIE;
use serde_json::{Value, json};

use super::SOON;
use crate::support::{TestWorld, WorkerOptions, acme};

const PATH: &str = "/controls/kill-switch";

fn message(key: &str) -> Value {
    let mut message = acme::job(key, &Value::Null);
    message["events"] = json!([]);
    message
}

#[tokio::test]
async fn a_kill_switch_is_tried_placed_and_ended_on_its_pages() {
    let world = TestWorld::acme().await;
    let console = world.console().await;
    let worker = world.worker(&WorkerOptions::default());
    world.publish_job(&message("before")).await;
    world
        .wait_job_state("before", JobState::Succeeded, SOON)
        .await;
    // A worker reads the controls when it starts.
    worker.kill9().await;
    let admin = world.token(Role::Admin, "ann", &[]).await;
    let operator = world.token(Role::Operator, "olga", &[]).await;
    let (ann, olga) = (
        console.sign_in(&admin).await,
        console.sign_in(&operator).await,
    );
    let tried = format!(
        "{PATH}?organization=&source={}&payload=&action=park",
        acme::SOURCE
    );
    let page = console.page(&ann, &tried).await;
    assert!(page.contains("0 open jobs; 1 of the last hour"), "{page}");
    let seen = console.request(Method::GET, &tried).header(COOKIE, &olga);
    let seen = seen.send().await.expect("an answer");
    assert_eq!(seen.status(), 403, "conditions ask what others see masked");

    let terms = [("minutes", "5"), ("reason", "the source is broken")];
    let placed = console.submit(&ann, &page, PATH, &terms).await;
    assert_eq!(placed.status(), 303);
    let worker = world.worker(&WorkerOptions::default());
    world.publish_job(&message("stopped")).await;
    let stopped = world
        .wait_job_state("stopped", JobState::Parked, SOON)
        .await;
    assert_eq!(stopped.error_code.as_deref(), Some("operator.kill_switch"));

    let controls = console.page(&ann, "/controls").await;
    let number = "SELECT id FROM controls WHERE kind = 'kill_switch'";
    let end = format!("/controls/{}/end", world.database.one(number).await);
    let ended = console
        .submit(&ann, &controls, &end, &[("reason", "it is repaired")])
        .await;
    assert_eq!(ended.status(), 303);
    worker.kill9().await;
    let _worker = world.worker(&WorkerOptions::default());
    world.publish_job(&message("after")).await;
    world
        .wait_job_state("after", JobState::Succeeded, SOON)
        .await;
}

#[tokio::test]
async fn a_kill_switch_without_valid_conditions_is_refused_and_places_nothing() {
    let world = TestWorld::acme().await;
    let console = world.console().await;
    let token = world.token(Role::Admin, "ann", &[]).await;
    for wrong in [
        json!({}),
        json!({"pipeline": "none"}),
        json!({"organization": "nobody"}),
        json!({"payload": "no value"}),
        json!({"source": "x", "minutes": 0}),
        json!({"source": "x", "colour": "red"}),
    ] {
        let mut body = json!({"action": "cancel", "minutes": 5, "reason": "test"});
        for (name, value) in wrong.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let answer = console.post(&token, PATH, &body).await;
        let status = answer.status();
        assert!(status == 404 || status == 422, "{body}: {status}");
    }
    assert_eq!(
        world.database.one("SELECT count(*) FROM controls").await,
        "0"
    );
}
