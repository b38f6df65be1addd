//! A database with another schema: everything that can be read is shown, and nothing changes.

use dispatch_worker::console::all;
use dispatch_worker::store::{Role, Store};
use reqwest::Method;
use reqwest::header::{COOKIE, RETRY_AFTER};
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
    let hold = json!({"scope": "lane:dispatch", "minutes": 5, "reason": "test"});
    let held = console.post(&token, "/controls/hold", &hold).await;
    assert_eq!(held.status(), 200);

    let needed = Store::needed_schema_version();
    let (newer, older) = (needed + 1, needed - 1);
    let migrate = format!(
        "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
            VALUES ({newer}, 'later', now()::text, '0')"
    );
    world.database.rows(&migrate).await;
    // The next change is refused, whatever a page was made from before.
    let before = world.database.rows(TRACES).await;
    let refused = console.post(&token, "/controls/hold", &hold).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key(RETRY_AFTER));
    let problem: Value = refused.json().await.expect("JSON");
    assert_eq!(problem["code"], "other_schema");
    let detail = format!("Expected schema V{needed} in the database, got V{newer}");
    assert_eq!(problem["detail"], json!(detail));
    bar_says(&console, &cookie, &detail).await;

    for route in all().filter(|route| route.method != Method::GET) {
        let path = path(route);
        for (is_page, is_there) in [(false, route.is_in_api()), (true, route.has_page())] {
            if !is_there {
                continue;
            }
            let prefix = if is_page { "" } else { "/api/v1" };
            let request = console.request(route.method.clone(), &format!("{prefix}{path}"));
            let request = if is_page {
                request.header(COOKIE, &cookie)
            } else {
                request.bearer_auth(&token)
            };
            let answer = request.json(&json!({"reason": "test"})).send().await;
            assert_eq!(
                answer.expect("an answer").status(),
                503,
                "{} {path}",
                route.name
            );
        }
    }
    let confirm = format!("/jobs/{}/confirm/cancel", job.id);
    let confirm = console.request(Method::GET, &confirm).bearer_auth(&token);
    assert_eq!(confirm.send().await.expect("an answer").status(), 503);
    assert_eq!(world.database.rows(TRACES).await, before);

    // Reading goes on, without anything that acts.
    for path in [
        "/",
        "/jobs",
        "/controls",
        "/audit",
        &format!("/jobs/{}", job.id),
    ] {
        let page = console.page(&cookie, path).await;
        assert!(page.contains(&detail), "{path}: {page}");
        assert_eq!(
            page.matches("method=\"post\"").count(),
            1,
            "{path}: only the sign-out acts: {page}"
        );
        assert!(!page.contains("/confirm/"), "{path}: {page}");
    }
    let status = console.json(&token, "/").await;
    assert!(status["in_force"].to_string().contains(&detail));

    let back = format!("DELETE FROM refinery_schema_history WHERE version = {newer}");
    world.database.rows(&back).await;
    let resumed = console.post(&token, "/controls/hold", &hold).await;
    assert_eq!(resumed.status(), 200, "the schema is the console's again");

    let last = format!("DELETE FROM refinery_schema_history WHERE version = {needed}");
    world.database.rows(&last).await;
    let refused = console.post(&token, "/controls/hold", &hold).await;
    let problem: Value = refused.json().await.expect("JSON");
    assert_eq!(problem["code"], "other_schema");
    assert!(
        problem["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("dispatch migrate"))
    );
    bar_says(&console, &cookie, &format!("got V{older}")).await;

    // What this schema no longer has is no failure of the console.
    world
        .database
        .rows("ALTER TABLE audit_log RENAME COLUMN who TO actor")
        .await;
    let unreadable = console.get(&token, "/audit").await;
    let status = unreadable.status();
    let problem: Value = unreadable.json().await.expect("JSON");
    assert_eq!(
        (status.as_u16(), &problem["code"]),
        (503, &json!("other_schema"))
    );
}
