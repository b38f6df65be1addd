//! A database with another schema: everything that can be read is shown, and nothing changes.

use dispatch_worker::console::all;
use dispatch_worker::store::{Role, Store};
use reqwest::header::{COOKIE, RETRY_AFTER};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::access::path;
use super::{SOON, waiting_job};
use crate::support::{ConsoleProcess, TestWorld, WorkerOptions, wait_for};

/// Everything that a change could leave behind.
const TRACES: &str = "
    SELECT (SELECT count(*) FROM audit_log)::text, (SELECT count(*) FROM controls)::text,
        (SELECT string_agg(state || epoch, ',') FROM jobs), (SELECT count(*) FROM idempotency_keys)::text";

async fn bar(console: &ConsoleProcess, cookie: &str) -> String {
    let page = console.page(cookie, "/controls").await;
    let bar = page.split("data-part=\"bar\"").nth(1).expect("a bar");
    bar.split("</aside>")
        .next()
        .expect("a first part")
        .to_owned()
}

async fn bar_says(console: &ConsoleProcess, cookie: &str, text: &str) {
    wait_for("the bar to follow the schema", SOON, async || {
        let bar = bar(console, cookie).await;
        if bar.contains(text) { Ok(()) } else { Err(bar) }
    })
    .await;
}

/// Tries every change that the console knows, as a program and as a person.
async fn every_change_is_refused(console: &ConsoleProcess, token: &str, cookie: &str) {
    for route in all().filter(|route| route.method != Method::GET) {
        let path = path(route);
        for (is_page, is_there) in [(false, route.is_in_api()), (true, route.has_page())] {
            if !is_there {
                continue;
            }
            let prefix = if is_page { "" } else { "/api/v1" };
            let request = console.request(route.method.clone(), &format!("{prefix}{path}"));
            let request = if is_page {
                request.header(COOKIE, cookie)
            } else {
                request.bearer_auth(token)
            };
            let answer = request.json(&json!({"reason": "test"})).send().await;
            let status = answer.expect("an answer").status();
            assert_eq!(status, 503, "{} {path}", route.name);
        }
    }
}

/// Reads pages, which show `detail` and nothing that acts.
async fn reading_goes_on(console: &ConsoleProcess, cookie: &str, job: &str, detail: &str) {
    let job = format!("/jobs/{job}");
    for path in ["/", "/jobs", "/controls", "/audit", &job] {
        let page = console.page(cookie, path).await;
        assert!(page.contains(detail), "{path}: {page}");
        let forms = page.matches("method=\"post\"").count();
        assert_eq!(forms, 1, "{path}: only the sign-out acts: {page}");
        assert!(!page.contains("/confirm/"), "{path}: {page}");
    }
}

async fn problem_of(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

fn hold() -> Value {
    json!({"scope": "lane:dispatch", "minutes": 5, "reason": "test"})
}

#[tokio::test]
async fn with_another_schema_the_console_shows_what_it_can_and_changes_nothing() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    drop(worker);
    let console = world.console().await;
    let token = world.token(Role::Admin, "ann", &[]).await;
    let cookie = console.sign_in(&token).await;
    assert!(!bar(&console, &cookie).await.contains("schema"));
    let held = console.post(&token, "/controls/hold", &hold()).await;
    assert_eq!(held.status(), 200);

    let needed = Store::needed_schema_version();
    let newer = needed + 1;
    let migrate = format!(
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
            VALUES ({newer}, 'later', now()::text, '0')"
    );
    world.database.rows(&migrate).await;
    // The next change is refused, whatever a page was made from before.
    let before = world.database.rows(TRACES).await;
    let refused = console.post(&token, "/controls/hold", &hold()).await;
    assert!(refused.headers().contains_key(RETRY_AFTER));
    let (status, problem) = problem_of(refused).await;
    assert_eq!((status, &problem["code"]), (503, &json!("other_schema")));
    let detail = format!("Expected schema V{needed} in the database, got V{newer}");
    assert_eq!(problem["detail"], json!(detail));
    bar_says(&console, &cookie, &detail).await;
    every_change_is_refused(&console, &token, &cookie).await;
    let confirm = format!("/jobs/{}/confirm/cancel", job.id);
    let confirm = console.request(Method::GET, &confirm).bearer_auth(&token);
    assert_eq!(confirm.send().await.expect("an answer").status(), 503);
    assert_eq!(world.database.rows(TRACES).await, before);

    reading_goes_on(&console, &cookie, &job.id.to_string(), &detail).await;
    let status = console.json(&token, "/").await;
    assert!(status["in_force"].to_string().contains(&detail));

    let back = format!("DELETE FROM refinery_schema_history WHERE version = {newer}");
    world.database.rows(&back).await;
    let resumed = console.post(&token, "/controls/hold", &hold()).await;
    assert_eq!(resumed.status(), 200, "the schema is the console's again");
}

#[tokio::test]
async fn with_an_older_schema_the_console_asks_for_the_migration() {
    let world = TestWorld::new().await;
    let console = world.console().await;
    let token = world.token(Role::Admin, "ann", &[]).await;
    let needed = Store::needed_schema_version();
    let last = format!("DELETE FROM refinery_schema_history WHERE version = {needed}");
    world.database.rows(&last).await;
    let refused = console.post(&token, "/controls/hold", &hold()).await;
    let (status, problem) = problem_of(refused).await;
    assert_eq!((status, &problem["code"]), (503, &json!("other_schema")));
    let hint = problem["hint"].as_str().unwrap_or_default();
    assert!(hint.contains("dispatch migrate"), "{problem}");
    let cookie = console.sign_in(&token).await;
    bar_says(&console, &cookie, &format!("got V{}", needed - 1)).await;

    // What this schema does not have is no failure of the console.
    let rename = "ALTER TABLE audit_log RENAME COLUMN who TO actor";
    world.database.rows(rename).await;
    let (status, problem) = problem_of(console.get(&token, "/audit").await).await;
    assert_eq!((status, &problem["code"]), (503, &json!("other_schema")));
    world
        .database
        .rows("DROP TABLE refinery_schema_history")
        .await;
    let refused = console.post(&token, "/controls/hold", &hold()).await;
    let (_, problem) = problem_of(refused).await;
    let detail = format!("Expected schema V{needed} in the database, got V0");
    assert_eq!(problem["detail"], json!(detail));
}
