//! What is refused is in the audit log, with a limit, and without tokens.

use dispatch_worker::store::Role;
use reqwest::Method;
use reqwest::header::COOKIE;
use serde_json::json;

use crate::support::{TestWorld, form};

/// Changes that the viewer tries.
const TRIED: usize = 30;

#[tokio::test]
async fn sign_outs_and_refusals_are_audited_without_tokens_and_with_a_limit() {
    let world = TestWorld::new().await;
    let console = world.console().await;
    let ann = world.token(Role::Viewer, "ann", &[]).await;
    let shop = world.token(Role::Producer, "shop", &[]).await;
    let post = |path: &str, fields: &[(&str, String)]| {
        let request = console.request(Method::POST, path);
        form(request.header("sec-fetch-site", "same-origin"), fields)
    };
    for (token, status) in [("dispatch_not-a-token", 401), (shop.as_str(), 403)] {
        let answer = post("/sign-in", &[("token", token.to_owned())]);
        assert_eq!(answer.send().await.unwrap().status(), status);
    }
    let cookie = console.sign_in(&ann).await;
    let out = post("/sign-out", &[]).header(COOKIE, &cookie);
    assert_eq!(out.send().await.unwrap().status(), 303);
    let foreign = console
        .request(Method::POST, "/sign-out")
        .header(COOKIE, &cookie);
    assert_eq!(foreign.send().await.unwrap().status(), 403);

    let hold = json!({"scope": "lane:dispatch", "minutes": 5, "reason": "test"});
    for _ in 0..TRIED {
        let refused = console.post(&ann, "/controls/hold", &hold).await;
        assert_eq!(refused.status(), 403);
    }
    let nobody = console
        .request(Method::POST, "/api/v1/controls/hold")
        .json(&hold);
    assert_eq!(nobody.send().await.unwrap().status(), 401);
    let bad = console.post("dispatch_not-a-token", "/controls/hold", &hold);
    assert_eq!(bad.await.status(), 401);
    assert_eq!(
        console.get(&ann, "/jobs").await.status(),
        200,
        "reading is not audited"
    );
    console.end().await;

    let rows = "
        SELECT action, who, role, token FROM audit_log WHERE action LIKE 'console.%' AND action <> 'console.refused'
        ORDER BY action, who";
    assert_eq!(
        world.database.rows(rows).await,
        [
            ["console.refused_sign_in", "shop", "producer", "shop"],
            ["console.refused_sign_in", "unknown", "nobody", "unknown"],
            ["console.sign_in", "ann", "viewer", "ann"],
            ["console.sign_out", "ann", "viewer", "ann"],
        ]
    );
    let of_ann = "
        SELECT (count(*) FILTER (WHERE after->>'further' IS NULL) + sum(coalesce((after->>'further')::int, 0)))::text,
            (count(*) <= 12)::text, min(after->>'route'), min(after->>'address')
        FROM audit_log WHERE action = 'console.refused' AND who = 'ann'";
    let tried = TRIED.to_string();
    assert_eq!(
        world.database.rows(of_ann).await,
        [[tried.as_str(), "true", "place_hold", "127.0.0.1"]]
    );
    // The same wrong token has the same hash, and is nowhere itself.
    let hashes = "
        SELECT count(*)::text, count(DISTINCT after->>'token')::text, min(length(after->>'token'))::text
        FROM audit_log WHERE who = 'unknown' AND after->>'token' IS NOT NULL";
    assert_eq!(world.database.rows(hashes).await, [["2", "1", "8"]]);
    let plain = "SELECT count(*)::text FROM audit_log a WHERE a::text LIKE '%not-a-token%'";
    assert_eq!(world.database.one(plain).await, "0");
    let unknown =
        "SELECT count(*)::text FROM audit_log WHERE action = 'console.refused' AND who = 'unknown'";
    assert_eq!(world.database.one(unknown).await, "2");
}
