//! Who may do what: a matrix made from the table of routes, organizations of others, and sessions.

use dispatch_worker::console::{Access, Route, all};
use dispatch_worker::store::Role;
use reqwest::header::COOKIE;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::waiting_job;
use crate::support::{ConsoleProcess, TestWorld, WorkerOptions, field, form};

const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

/// Returns a route's path with names of things that do not exist.
pub(super) fn path(route: &Route) -> String {
    route
        .path
        .replace("{id}", NOBODY)
        .replace("{name}", "nobody")
        .replace("{action}", "retry")
        .replace("{fingerprint}", "none")
        .replace("{alert}", "DispatchNothing")
        .replace("{number}", "0")
}

async fn status(console: &ConsoleProcess, route: &Route, path: &str, token: Option<&str>) -> u16 {
    let mut request = console.request(route.method.clone(), path);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if route.method != Method::GET {
        request = request.json(&json!({}));
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn every_route_is_open_to_the_roles_of_its_row_and_to_nobody_else() {
    let world = TestWorld::new().await;
    let console = world.console().await;
    let mut tokens = Vec::new();
    for role in Role::OF_TOKENS {
        tokens.push((role, world.token(role, role.word(), &[]).await));
    }
    let revoked = world.token(Role::Admin, "revoked", &[]).await;
    let revoke = world.dispatch(&["tokens", "revoke", "revoked", "--yes"]);
    revoke.done().await;
    let ended = world.token(Role::Admin, "ended", &[]).await;
    let end = "UPDATE api_tokens SET expires_at = now() WHERE name = 'ended'";
    world.database.rows(end).await;

    for route in all() {
        assert_ne!(
            route.access,
            Access::Everybody,
            "{}: nothing is open yet",
            route.name
        );
        for (is_page, is_there) in [(false, route.is_in_api()), (true, route.has_page())] {
            if !is_there {
                continue;
            }
            let prefix = if is_page { "" } else { "/api/v1" };
            let path = format!("{prefix}{}", path(route));
            let unknown = if is_page { 303 } else { 401 };
            assert_eq!(
                status(&console, route, &path, None).await,
                unknown,
                "{path}"
            );
            for (role, token) in &tokens {
                let found = status(&console, route, &path, Some(token)).await;
                // A producer's token sees jobs of its source only.
                let is_wide = matches!(
                    route.access,
                    Access::From {
                        is_scoped: false,
                        ..
                    }
                );
                let expected = match (route.permits(*role), is_wide && *role == Role::Producer) {
                    (false, _) => found == 403,
                    (true, true) => found == 404,
                    (true, false) => ![401, 403, 500].contains(&found),
                };
                assert!(
                    expected,
                    "{} {path} as {}: {found}",
                    route.method,
                    role.word()
                );
            }
        }
    }
    // Bad tokens are counted, so only a few routes are tried with them.
    for bad in ["dispatch_x", revoked.as_str(), ended.as_str()] {
        assert_eq!(console.get(bad, "/jobs").await.status(), 401, "{bad}");
    }
    for _ in 0..8 {
        console.get("dispatch_x", "/jobs").await;
    }
    let limited = console.get("dispatch_x", "/jobs").await;
    assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(limited.headers().contains_key("retry-after"));
    assert_eq!(
        console.get(&tokens[3].1, "/jobs").await.status(),
        200,
        "a good token still works"
    );
}

#[tokio::test]
async fn a_token_sees_nothing_of_other_organizations_and_sources() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    let console = world.console().await;
    let own = world.token(Role::Admin, "own", &["acme", "globex"]).await;
    let other = world.token(Role::Admin, "other", &["globex"]).await;
    let producer = world.token(Role::Producer, "shop", &[]).await;

    let listed = console.json(&own, "/jobs?organization=acme").await;
    assert_eq!(listed["jobs"][0]["id"], json!(job.id));
    assert_eq!(
        console.get(&own, "/jobs").await.status(),
        400,
        "it must choose one of its two"
    );
    assert_eq!(console.json(&other, "/jobs").await["jobs"], json!([]));
    assert_eq!(
        console
            .get(&other, "/jobs?organization=acme")
            .await
            .status(),
        404
    );
    assert_eq!(
        console.get(&own, "/tokens").await.status(),
        404,
        "tokens belong to no organization"
    );
    let body = json!({"reason": "test"});
    for route in all().filter(|route| route.is_in_api() && route.path.contains("{id}")) {
        let path = route.path.replace("{id}", &job.id.to_string());
        let found = if route.method == Method::GET {
            console.get(&other, &path).await.status()
        } else {
            let body = match route.name {
                "configure_job" => json!({"reason": "test", "account": "x"}),
                "rerun_job" => json!({"reason": "test", "stage": "check_account"}),
                "skip_stage" => json!({"reason": "test", "stage": "check_account", "output": "{}"}),
                "mark_effect" => json!({"reason": "test", "key": "k", "done": true}),
                "edit_input" => json!({"reason": "test", "input": "{}"}),
                "preview_input" => json!({"input": "{}"}),
                "restore_input" => json!({"reason": "test", "version": 1}),
                _ => body.clone(),
            };
            console.post(&other, &path, &body).await.status()
        };
        assert_eq!(found, 404, "{path}");
    }
    let found = console.json(&producer, "/jobs/by-key?key=a").await;
    assert_eq!(found["id"], json!(job.id));
    assert_eq!(
        console
            .get(&producer, "/jobs/by-key?key=a&source=x")
            .await
            .status(),
        404
    );
    let path = format!("/jobs/{}/cancel", job.id);
    assert_eq!(console.post(&producer, &path, &body).await.status(), 200);
}

#[tokio::test]
async fn a_session_ends_with_its_token_and_acts_only_by_forms_of_its_own_pages() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    let console = world.console().await;
    let token = world.token(Role::Operator, "ann", &[]).await;
    let cookie = console.sign_in(&token).await;
    let get = async |path: &str| {
        let request = console.request(Method::GET, path).header(COOKIE, &cookie);
        request.send().await.unwrap()
    };
    let confirm = get(&format!("/jobs/{}/confirm/cancel", job.id))
        .await
        .text()
        .await
        .unwrap();
    let field = |name: &str| field(&confirm, name);
    let fields = |form_token: String| {
        [
            ("form_token", form_token),
            ("key", field("key")),
            ("etag", field("etag")),
            ("reason", "not needed".to_owned()),
        ]
    };
    let path = format!("/jobs/{}/cancel", job.id);
    let post = async |site: &str, fields: &[(&str, String)]| {
        let request = console.request(Method::POST, &path).header(COOKIE, &cookie);
        let request = form(request.header("sec-fetch-site", site), fields);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("cross-site", &fields(field("form_token"))).await, 403);
    assert_eq!(post("same-origin", &fields("wrong".to_owned())).await, 403);
    assert_eq!(post("same-origin", &fields(field("form_token"))).await, 303);
    assert_eq!(
        post("same-origin", &fields(field("form_token"))).await,
        303,
        "a double click"
    );
    let actions = "SELECT who, role, action, reason, token FROM audit_log WHERE job_id IS NOT NULL";
    assert_eq!(
        world.database.rows(actions).await,
        [["ann", "operator", "cancel", "not needed", "ann"]]
    );
    assert_eq!(get("/jobs").await.status(), 200);
    world
        .dispatch(&["tokens", "revoke", "ann", "--yes"])
        .done()
        .await;
    assert_eq!(get("/jobs").await.status(), 303, "the session has ended");
}

#[tokio::test]
async fn who_sees_one_organization_does_not_learn_who_paused_everything_and_why() {
    let world = TestWorld::acme().await;
    let planted = "
        INSERT INTO controls (kind, scope, reason, who, expires_at)
            VALUES ('pause', 'all', 'contoso leaked its token', 'olga', now() + interval '1 hour');
        INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage)
            VALUES (gen_random_uuid(), 'dispatch', 'tests', 'a', 'acme', 1, '{}', 'ready', 'check_account')";
    world.database.rows(planted).await;
    let job = world.database.one("SELECT id FROM jobs").await;
    let console = world.console().await;
    let explained = async |name: &str, organizations: &[&str]| {
        let token = world.token(Role::Viewer, name, organizations).await;
        let path = format!("/jobs/{job}/explain");
        let text = console.json(&token, &path).await.to_string();
        let cookie = console.sign_in(&token).await;
        let page = console.page(&cookie, &format!("/jobs/{job}")).await;
        [text, page]
    };
    for shown in explained("ann", &[]).await {
        assert!(
            shown.contains("olga") && shown.contains("contoso leaked"),
            "{shown}"
        );
    }
    for shown in explained("bob", &["acme"]).await {
        assert!(
            !shown.contains("olga") && !shown.contains("contoso"),
            "{shown}"
        );
        assert!(shown.contains("paused"), "{shown}");
    }
}
