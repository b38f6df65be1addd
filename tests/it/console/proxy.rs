//! Signing in through a proxy: its header counts from a listed peer with the shared secret only.

use dispatch_worker::secrets::Keyring;
use dispatch_worker::store::Role;
use reqwest::header::{COOKIE, HeaderMap, LOCATION};
use reqwest::{Method, RequestBuilder};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{BINARY, ConsoleProcess, TestWorld, field, form};

const SECRET: &str = "a-secret-of-the-proxy-and-the-console";
const OLGA: &str = "olga@example.org";
const HEADER: (&str, &str) = ("DISPATCH_CONSOLE_PROXY_USER_HEADER", "X-Forwarded-User");

fn settings(peers: &str) -> [(&str, &str); 4] {
    [
        HEADER,
        ("DISPATCH_CONSOLE_PROXY_SECRET", SECRET),
        ("DISPATCH_CONSOLE_PROXY_PEERS", peers),
        ("DISPATCH_CONSOLE_PROXY_ROLES", "olga@example.org=operator"),
    ]
}

fn named(request: RequestBuilder, user: &str, secret: &str) -> RequestBuilder {
    request
        .header("x-forwarded-user", user)
        .header("x-dispatch-proxy-secret", secret)
}

/// Returns the status and the headers of the page of controls.
async fn controls(console: &ConsoleProcess, user: &str, secret: &str) -> (u16, HeaderMap) {
    let request = console.request(Method::GET, "/controls");
    let answer = named(request, user, secret).send().await.unwrap();
    (answer.status().as_u16(), answer.headers().clone())
}

#[tokio::test]
async fn a_user_of_the_proxy_acts_by_forms_of_this_console_and_in_their_own_name() {
    let world = TestWorld::new().await;
    let console = ConsoleProcess::start_with(&world, None, &settings("10.0.0.1,127.0.0.0/8")).await;
    let get = async |user: &str| {
        let request = console.request(Method::GET, "/controls");
        let answer = named(request, user, SECRET).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.text().await.unwrap()
    };
    let page = get(OLGA).await;
    assert!(page.contains("olga@example.org (operator)"), "{page}");
    assert!(
        !page.contains("Sign out"),
        "the proxy keeps the session: {page}"
    );
    let me = console.request(Method::GET, "/api/v1/me");
    let me = named(me, "ann@example.org", SECRET).send().await.unwrap();
    let me: Value = me.json().await.unwrap();
    assert_eq!(
        (&me["name"], &me["role"]),
        (&json!("ann@example.org"), &json!("viewer"))
    );

    let post = async |user: &str, site: &str, form_token: String| {
        let fields = [
            ("form_token", form_token),
            ("key", field(&page, "key")),
            ("scope", "lane:dispatch".to_owned()),
            ("minutes", "5".to_owned()),
            ("reason", "slow".to_owned()),
        ];
        let request = console.request(Method::POST, "/controls/hold");
        let request = form(request.header("sec-fetch-site", site), &fields);
        let answer = named(request, user, SECRET).send().await.unwrap();
        answer.status().as_u16()
    };
    let own = field(&page, "form_token");
    assert_eq!(own, field(&get(OLGA).await, "form_token"));
    assert_eq!(post(OLGA, "cross-site", own.clone()).await, 403);
    assert_eq!(post(OLGA, "same-origin", String::new()).await, 403);
    let others = field(&get("ann@example.org").await, "form_token");
    assert_eq!(post(OLGA, "same-origin", others.clone()).await, 403);
    assert_eq!(
        post("ann@example.org", "same-origin", others).await,
        403,
        "a viewer"
    );
    assert_eq!(post(OLGA, "same-origin", own.clone()).await, 303);
    assert_eq!(
        post(OLGA, "same-origin", own).await,
        303,
        "a double click acts once"
    );
    console.end().await;
    let log = "
        SELECT action, who, role, token FROM audit_log WHERE action IN ('hold.place', 'console.sign_in') ORDER BY action, who";
    assert_eq!(
        world.database.rows(log).await,
        [
            ["console.sign_in", "ann@example.org", "viewer", "proxy"],
            ["console.sign_in", OLGA, "operator", "proxy"],
            ["hold.place", OLGA, "operator", "proxy"],
        ]
    );
}

#[tokio::test]
async fn a_user_header_does_not_count_without_the_secret_the_peer_and_the_settings() {
    let world = TestWorld::new().await;
    let console = ConsoleProcess::start_with(&world, None, &settings("127.0.0.1")).await;
    let unlisted = ConsoleProcess::start_with(&world, None, &settings("10.0.0.1")).await;
    let plain = world.console().await;
    assert_eq!(controls(&console, OLGA, SECRET).await.0, 200);
    for (from, secret) in [
        (&console, "wrong"),
        (&console, ""),
        (&unlisted, SECRET),
        (&plain, SECRET),
    ] {
        let (status, headers) = controls(from, OLGA, secret).await;
        assert_eq!(status, 303, "{secret}");
        assert!(
            headers[LOCATION]
                .to_str()
                .unwrap()
                .starts_with("/sign-in?next=")
        );
    }
    let without = console.request(Method::GET, "/api/v1/me");
    let without = without.header("x-forwarded-user", OLGA).send().await;
    assert_eq!(without.unwrap().status(), 401);

    // Who has a token, or a session, cannot act in the name of another one.
    let token = world.token(Role::Operator, "bob", &[]).await;
    let hold = json!({"scope": "lane:dispatch", "minutes": 5, "reason": "test"});
    let request = console
        .request(Method::POST, "/api/v1/controls/hold")
        .bearer_auth(&token);
    let held = named(request, OLGA, "wrong").json(&hold).send().await;
    assert_eq!(held.unwrap().status(), 200);
    let cookie = console.sign_in(&token).await;
    let me = console
        .request(Method::GET, "/api/v1/me")
        .header(COOKIE, &cookie);
    let me = named(me, OLGA, "wrong").send().await.unwrap();
    assert_eq!(me.json::<Value>().await.unwrap()["name"], "bob");
    console.end().await;
    let log = "SELECT DISTINCT who FROM audit_log WHERE action IN ('hold.place', 'console.sign_in') ORDER BY who";
    assert_eq!(world.database.rows(log).await, [["bob"], [OLGA]]);
    let acts = "SELECT who FROM audit_log WHERE action = 'hold.place'";
    assert_eq!(world.database.rows(acts).await, [["bob"]]);
}

#[tokio::test]
async fn a_console_with_a_part_of_the_settings_of_a_proxy_does_not_start() {
    let peers = ("DISPATCH_CONSOLE_PROXY_PEERS", "127.0.0.1");
    let short = ("DISPATCH_CONSOLE_PROXY_SECRET", "short");
    for (settings, wrong) in [
        (vec![HEADER, peers], "set all three, or none"),
        (vec![HEADER, peers, short], "32 characters or more"),
    ] {
        let ended = Command::new(BINARY)
            .arg("console")
            .env_clear()
            .env("DISPATCH_DATABASE_URL", "postgres://x:y@127.0.0.1:1/x")
            .env("DISPATCH_KEYRING", Keyring::fresh_setting().expose_secret())
            .envs(settings)
            .output()
            .await
            .expect("the console ends");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains(wrong), "{said}");
    }
}
