//! Actions by the API: once for a key, for the version that was seen, with a reason.

use dispatch_worker::job::JobState;
use dispatch_worker::store::Role;
use reqwest::Method;
use reqwest::header::{ETAG, IF_MATCH};
use serde_json::{Value, json};

use super::{SOON, waiting_job};
use crate::support::{TestWorld, WorkerOptions, acme};

#[tokio::test]
async fn two_people_act_on_one_job_and_the_second_learns_what_has_changed() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    let console = world.console().await;
    let (ann, bob) = (
        world.token(Role::Operator, "ann", &[]).await,
        world.token(Role::Operator, "bob", &[]).await,
    );
    let seen = console.get(&ann, &format!("/jobs/{}", job.id)).await;
    let etag = seen.headers()[ETAG].to_str().unwrap().to_owned();
    let act = async |token: &str, verb: &str, body: Value| {
        let path = format!("/api/v1/jobs/{}/{verb}", job.id);
        let request = console.request(Method::POST, &path).bearer_auth(token);
        let request = request.header(IF_MATCH, &etag).json(&body);
        request.send().await.unwrap()
    };
    let account = json!({"account": acme::account_id(), "reason": "she said so"});
    let first = act(&ann, "configure", account).await;
    assert_eq!(first.status(), 200);
    let first: Value = first.json().await.unwrap();
    assert_eq!(
        (&first["changed"], &first["now"]["state"]),
        (&json!(true), &json!("ready"))
    );

    let second = act(&bob, "cancel", json!({"reason": "too late"})).await;
    assert_eq!(second.status(), 412);
    let problem: Value = second.json().await.unwrap();
    assert_eq!(problem["code"], "moved_on");
    assert_ne!(problem["now"]["etag"], json!(etag.trim_matches('"')));
    world.wait_job_state("a", JobState::Succeeded, SOON).await;
}

#[tokio::test]
async fn a_request_that_is_sent_twice_changes_something_once() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = waiting_job(&world, "a").await;
    let console = world.console().await;
    let token = world.token(Role::Operator, "ann", &[]).await;
    let cancel = async |key: &str, reason: &str| {
        let path = format!("/api/v1/jobs/{}/cancel", job.id);
        let request = console.request(Method::POST, &path).bearer_auth(&token);
        let request = request
            .header("idempotency-key", key)
            .json(&json!({"reason": reason}));
        let answer = request.send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (one, two) = tokio::join!(cancel("k1", "once"), cancel("k1", "once"));
    assert_eq!((one.0, two.0), (200, 200));
    assert_eq!(one.1, two.1, "both have the same answer");
    assert_eq!(one.1["changed"], json!(true));
    assert_eq!(cancel("k1", "once").await, one);
    let (status, problem) = cancel("k1", "another reason").await;
    assert_eq!((status, &problem["code"]), (422, &json!("key_reused")));
    let count = "SELECT count(*)::text FROM audit_log WHERE action = 'cancel'";
    assert_eq!(world.database.rows(count).await, [["1"]]);
    assert_eq!(cancel("", "x").await.0, 400, "an empty key is none");
}

#[tokio::test]
async fn a_producer_waits_for_the_end_of_its_job() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let console = world.console().await;
    let token = world.token(Role::Producer, "shop", &[]).await;
    let asked = console.json(&token, "/jobs/by-key?key=later&wait=30");
    let published = async {
        let mut message = acme::job("later", &Value::Null);
        (message["events"], message["notify"]) = (json!([]), json!([]));
        world.publish_job(&message).await;
    };
    let (found, ()) = tokio::join!(asked, published);
    assert_eq!(found["state"], "succeeded");
}

#[tokio::test]
async fn a_control_ends_by_its_number_and_a_group_is_changed_in_place() {
    let world = TestWorld::new().await;
    let console = world.console().await;
    let (operator, admin) = (
        world.token(Role::Operator, "ann", &[]).await,
        world.token(Role::Admin, "olga", &[]).await,
    );
    let planted = "
        INSERT INTO failure_groups (fingerprint, pipeline, stage, error_code, sample)
            VALUES ('f-1', 'dispatch', 'check_account', 'x.y', 'text');
        INSERT INTO controls (kind, scope, matcher, reason, who, expires_at) VALUES
            ('hold', 'lane:dispatch', NULL, 'test', 'olga', now() + interval '1 hour'),
            ('pause', 'all', NULL, 'test', 'olga', now() + interval '1 hour'),
            ('kill_switch', 'all', '{\"source\": \"x\", \"action\": \"park\"}', 'test', 'olga', now() + interval '1 hour')";
    world.database.rows(planted).await;
    let send = async |method: Method, token: &str, path: &str, body: Value| {
        let path = format!("/api/v1{path}");
        let request = console.request(method, &path).bearer_auth(token);
        request.json(&body).send().await.unwrap().status().as_u16()
    };
    let end = async |token: &str, kind: &str| {
        let number = format!("SELECT id FROM controls WHERE kind = '{kind}'");
        let path = format!("/controls/{}", world.database.one(&number).await);
        send(Method::DELETE, token, &path, json!({"reason": "over"})).await
    };
    for kind in ["pause", "kill_switch"] {
        assert_eq!(end(&operator, kind).await, 403, "{kind}");
        assert_eq!(end(&admin, kind).await, 200, "{kind}");
    }
    assert_eq!(end(&operator, "hold").await, 200);
    assert_eq!(end(&operator, "hold").await, 404, "it has ended");
    assert_eq!(
        send(Method::DELETE, &admin, "/controls/1", json!({})).await,
        422,
        "without a reason"
    );
    let note = json!({"owner": "ann", "reason": "test"});
    let changed = send(Method::PATCH, &operator, "/groups/f-1", note.clone()).await;
    assert_eq!(changed, 200);
    let posted = send(Method::POST, &operator, "/groups/f-1/note", note).await;
    assert_eq!(posted, 404, "programs have one way");
    let log = "SELECT action, who FROM audit_log WHERE token IS NOT NULL AND role <> 'nobody' AND action NOT LIKE 'console.%' ORDER BY id";
    assert_eq!(
        world.database.rows(log).await,
        [
            ["controls.resume", "olga"],
            ["controls.end_kill_switch", "olga"],
            ["hold.release", "ann"],
            ["failure_group.note", "ann"],
        ]
    );
}
