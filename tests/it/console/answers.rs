//! Every answer of the API has the shape that the OpenAPI document states.

use dispatch_worker::console::{Route, all, document};
use dispatch_worker::store::Role;
use reqwest::Method;
use serde_json::{Value, json};

use super::waiting_job;
use crate::operator::dead_letters::{letter, message};
use crate::support::{TestWorld, WorkerOptions};

/// Returns the schema of a route's answer, with the schemas that it refers to.
fn schema(document: &Value, path: &str) -> Value {
    let answer = &document["paths"][path]["get"]["responses"]["200"]["content"];
    let schema = answer
        .as_object()
        .and_then(|types| types.values().next())
        .unwrap()["schema"]
        .clone();
    json!({"allOf": [schema], "components": document["components"]})
}

#[tokio::test]
async fn every_answer_matches_its_schema() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    let console = world.console().await;
    let token = world.token(Role::Admin, "ann", &[]).await;
    let served = console.json(&token, "/openapi.json").await;
    assert_eq!(served, document());
    let group = "INSERT INTO failure_groups (fingerprint, pipeline, stage, error_code, sample)
        VALUES ('f-1', 'dispatch', 'check_account', 'x.y', 'text')";
    world.database.rows(group).await;
    let campaign = json!({"action": "retry", "state": "waiting", "reason": "test"});
    let started = console.post(&token, "/campaigns", &campaign).await;
    assert_eq!(started.status(), 200);
    assert_eq!(letter(&world, &message("letter")).await, 1);
    let is_read = |route: &&Route| {
        route.is_in_api() && route.method == Method::GET && route.media_type == "application/json"
    };
    for route in all().filter(is_read) {
        let path = route
            .path
            .replace("{id}", &job.id.to_string())
            .replace("{fingerprint}", "f-1")
            .replace("{alert}", "DispatchStuck")
            .replace("{number}", "1");
        let query = match route.name {
            "job_by_key" => "?source=tests&key=a",
            "preview_campaign" => "?state=waiting",
            "preview_kill_switch" => "?source=tests",
            _ => "",
        };
        let answer = console.json(&token, &format!("{path}{query}")).await;
        let schema = schema(&served, &format!("/api/v1{}", route.path));
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&answer)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?} in {answer}", route.name);
    }
}
