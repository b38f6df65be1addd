//! Wrong input gets a clear problem, and changes nothing.

use dispatch_worker::store::Role;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HOST, IF_MATCH};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::waiting_job;
use crate::support::{ConsoleProcess, TestWorld, WorkerOptions, form};

#[tokio::test]
async fn wrong_queries_hosts_bodies_and_conditions_are_refused_clearly() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    let console = world.console().await;
    let token = world.token(Role::Admin, "ann", &[]).await;
    for (query, part) in [
        ("state=red", "unknown variant"),
        ("colour=red", "unknown field"),
        ("limit=0", "1 to 200"),
        ("limit=201", "1 to 200"),
        ("before=x", "the cursor of this list"),
    ] {
        let answer = console.get(&token, &format!("/jobs?{query}")).await;
        assert_eq!(answer.status(), 400, "{query}");
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/problem+json");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "invalid_filter");
        assert!(
            problem["detail"].as_str().unwrap().contains(part),
            "{problem}"
        );
    }
    for hostile in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00Z", "x"] {
        for path in ["/audit?since=", "/jobs?since=", "/groups?before="] {
            let answer = console.get(&token, &format!("{path}{hostile}")).await;
            assert_eq!(answer.status(), 400, "{path}{hostile}");
        }
    }
    for path in [
        "/jobs/x",
        "/jobs/00000000-0000-7000-8000-000000000000",
        "/none",
    ] {
        assert_eq!(console.get(&token, path).await.status(), 404, "{path}");
    }
    let path = format!("/jobs/{}/cancel", job.id);
    for (body, code) in [
        (json!({}), "missing field"),
        (json!({"reason": " "}), "1 to 500"),
        (json!({"reason": "x".repeat(501)}), "1 to 500"),
        (
            json!({"reason": "x", "organization": "globex"}),
            "unknown field",
        ),
        (json!([]), "invalid"),
    ] {
        let answer = console.post(&token, &path, &body).await;
        assert_eq!(answer.status(), 422, "{body}");
        let problem: Value = answer.json().await.unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(code),
            "{problem}"
        );
    }
    let row = world.store().job(job.id).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.epoch),
        (job.state, job.epoch),
        "nothing was changed"
    );
}

#[tokio::test]
async fn requests_of_a_wrong_form_are_refused_before_anything_is_changed() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    let console = world.console().await;
    let token = world.token(Role::Admin, "ann", &[]).await;
    let path = format!("/jobs/{}/cancel", job.id);
    let large = json!({"reason": "x".repeat(300 << 10)});
    assert_eq!(console.post(&token, &path, &large).await.status(), 413);
    let reason = json!({"reason": "x"});
    let api = format!("/api/v1{path}");
    let with = |name, value: &str| {
        console
            .request(Method::POST, &api)
            .bearer_auth(&token)
            .json(&reason)
            .header(name, value)
    };
    assert_eq!(with(IF_MATCH, "*").send().await.unwrap().status(), 400);
    assert_eq!(
        with(HOST, "evil.example").send().await.unwrap().status(),
        421
    );
    let posted = console.request(Method::POST, &api).bearer_auth(&token);
    let posted = form(posted, &[("reason", "x".to_owned())]);
    assert_eq!(posted.send().await.unwrap().status(), 415);
    let put = console.request(Method::PUT, &api).bearer_auth(&token);
    assert_eq!(put.send().await.unwrap().status(), 405);
    let row = world.store().job(job.id).await.unwrap().unwrap();
    assert_eq!(
        (row.state, row.epoch),
        (job.state, job.epoch),
        "nothing was changed"
    );
}

#[tokio::test]
async fn silent_connections_take_the_console_from_nobody() {
    let world = TestWorld::new().await;
    let console = world.console().await;
    let token = world.token(Role::Viewer, "ann", &[]).await;
    let address = console.url("").replace("http://", "");
    let mut silent = Vec::new();
    for _ in 0..1000 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    assert_eq!(console.get(&token, "/jobs").await.status(), 200);
}

#[tokio::test]
async fn the_console_answers_while_postgres_is_away() {
    let world = TestWorld::new().await;
    let console = ConsoleProcess::start(
        &world,
        Some("postgres://worker:secret-password@127.0.0.1:1/none"),
    )
    .await;
    let answer = console.get("dispatch_x", "/jobs").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(
        answer.json::<Value>().await.unwrap()["code"],
        "postgres_away"
    );
}
