//! The page of a job that waits for an account: the link is the permission, for one job and once.

use std::collections::BTreeMap;

use dispatch_worker::job::JobState;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::SOON;
use crate::support::{ConsoleProcess, TestWorld, WorkerOptions, acme, form};

/// Publishes a job that names an identity and no account, and returns the link of its announcement.
async fn link(world: &TestWorld, key: &str) -> String {
    let mut message = acme::job(key, &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await);
    message["account"] = Value::Null;
    message["identity"] = json!("bot");
    world.publish_job(&message).await;
    let job = world.wait_job_state(key, JobState::Waiting, SOON).await;
    let sql = format!(
        "SELECT output ->> 'link' FROM checkpoints WHERE job_id = '{}' AND stage = 'show_configuration'",
        job.id
    );
    world.database.one(&sql).await
}

async fn choose(console: &ConsoleProcess, path: &str, site: &str, account: String) -> Response {
    let request = console.request(Method::POST, path);
    let request = request.header("sec-fetch-site", site);
    let fields = [("account", account)];
    form(request, &fields).send().await.expect("an answer")
}

/// A choice that was not possible before can be made again.
async fn choose_again(world: &TestWorld, console: &ConsoleProcess, path: &str) {
    let account = acme::account_id();
    let before = format!("UPDATE jobs SET account = '{account}' WHERE dedupe_key = 'b'");
    world.database.rows(&before).await;
    let again = choose(console, path, "same-origin", account).await;
    assert_eq!(again.status(), StatusCode::OK);
    world.wait_job_state("b", JobState::Succeeded, SOON).await;
}

#[tokio::test]
async fn a_person_chooses_the_account_of_a_job_on_the_page_of_its_link_once() {
    let world = TestWorld::acme().await;
    let console = world.console().await;
    let environment = BTreeMap::from([("DISPATCH_CONSOLE_URL".to_owned(), console.url("/"))]);
    let _worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    let (link, other) = (link(&world, "a").await, self::link(&world, "b").await);
    let path = link.strip_prefix(&console.url("")).expect("on the console");
    let get = async |path: &str| {
        let answer = console.request(Method::GET, path).send().await;
        let answer = answer.expect("an answer");
        (answer.status(), answer.text().await.expect("a text"))
    };
    let (status, page) = get(path).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        page.contains(&acme::account_id()) && page.contains("acme"),
        "{page}"
    );

    let own = "same-origin";
    for (site, account, refused) in [
        ("cross-site", acme::account_id(), StatusCode::FORBIDDEN),
        (
            own,
            "another-account".to_owned(),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        (own, String::new(), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let answer = choose(&console, path, site, account).await;
        assert_eq!(answer.status(), refused, "{site}");
    }
    assert_eq!(
        choose(&console, path, own, acme::account_id())
            .await
            .status(),
        StatusCode::OK
    );
    world.wait_job_state("a", JobState::Succeeded, SOON).await;
    assert_eq!(get(path).await.0, StatusCode::NOT_FOUND, "it serves once");
    let again = choose(&console, path, own, acme::account_id()).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    let altered = format!("{}A", &path[..path.len() - 1]);
    assert_eq!(
        get(&altered).await.0,
        StatusCode::NOT_FOUND,
        "nobody can make one"
    );
    let other = other
        .strip_prefix(&console.url(""))
        .expect("on the console");
    assert_eq!(
        get(other).await.0,
        StatusCode::OK,
        "the other job still waits"
    );
    choose_again(&world, &console, other).await;
    let row =
        "SELECT who, role, reason FROM audit_log WHERE action = 'configure' ORDER BY id LIMIT 1";
    let [who, role, reason] = &world.database.rows(row).await.concat()[..] else {
        panic!("one row");
    };
    assert_eq!((who.as_str(), role.as_str()), ("link", "producer"));
    assert!(reason.contains("link"), "{reason}");
}
