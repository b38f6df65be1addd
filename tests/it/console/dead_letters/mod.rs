//! Dead letters in the console: shown without names and secrets, judged by today's checks, replayed
//! by a worker, corrected and discarded.

mod actions;

use dispatch_worker::store::{NewDeadLetter, Role};
use reqwest::Method;
use serde_json::{Value, json};

use super::SOON;
use crate::support::{
    ConsoleProcess, TestWorld, WorkerOptions, acme, dead_letter, form, intake, wait_for,
};

/// Texts that no page and no answer may show.
const PLANTED: [&str; 5] = [
    "Anna Planted",
    "anna.planted@example.com",
    "Planted Street 7",
    "planted search",
    acme::HOOK_SECRET,
];

/// A console with a token of each role.
struct Bench {
    world: TestWorld,
    console: ConsoleProcess,
    operator: String,
    admin: String,
}

impl Bench {
    async fn new() -> Self {
        let world = TestWorld::acme().await;
        Self {
            console: world.console().await,
            operator: world.token(Role::Operator, "ann", &[]).await,
            admin: world.token(Role::Admin, "adam", &[]).await,
            world,
        }
    }

    /// Publishes a body that is refused, and returns the number of its letter.
    async fn refused(&self, body: impl Into<Vec<u8>>) -> i64 {
        let newest = "SELECT coalesce(max(id), 0) FROM dead_letters";
        let before = self.world.database.one(newest).await;
        self.world.publish_raw(&intake(body)).await;
        wait_for("a new dead letter", SOON, async || {
            let now = self.world.database.one(newest).await;
            if now == before {
                Err(now)
            } else {
                Ok(now.parse().expect("a number"))
            }
        })
        .await
    }

    async fn view(&self, id: i64) -> Value {
        let path = format!("/dead-letters/{id}");
        self.console.json(&self.operator, &path).await
    }

    async fn page(&self, token: &str, id: i64) -> String {
        let path = format!("/dead-letters/{id}");
        let asked = self.console.request(Method::GET, &path).bearer_auth(token);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.unwrap()
    }

    async fn post(&self, token: &str, id: i64, verb: &str, body: &Value) -> (u16, Value) {
        let path = format!("/dead-letters/{id}/{verb}");
        let answer = self.console.post(token, &path, body).await;
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Sends a form of a page and returns the status and the page.
    async fn post_form(&self, id: i64, verb: &str, fields: &[(&str, String)]) -> (u16, String) {
        let path = format!("/dead-letters/{id}/{verb}");
        let request = self.console.request(Method::POST, &path);
        let request = form(request.bearer_auth(&self.admin), fields);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn wait_replayed(&self, id: i64) -> Value {
        wait_for("the letter to be replayed", SOON, async || {
            let view = self.view(id).await;
            if view["resolution"] == "replayed" {
                Ok(view)
            } else {
                Err(view.to_string())
            }
        })
        .await
    }
}

/// Returns a job for an organization that does not exist, with planted texts.
fn planted() -> Value {
    let [name, mail, street, search, _] = PLANTED;
    let person = json!({"displayName": name, "uniqueName": mail, "id": "6d3b1b5e-7b35-4d3c-9f0e-3b1f7f6a2c11"});
    let payload = json!({"eventType": "workitem.updated", "message": {"text": format!("{name} moved to {street}")},
        "resource": {"workItemId": 19, "revisedBy": person, "fields": {"System.AssignedTo": {"newValue": format!("{name} <{mail}>")}}}});
    let mut job = acme::job("planted-1", &payload);
    job["organization"] = json!("newcomer");
    job["account"] = Value::Null;
    job["search"] = json!({"text": search});
    job
}

#[tokio::test]
async fn a_letter_shows_no_names_and_is_replayed_once_its_organization_exists() {
    let bench = Bench::new().await;
    let (world, console) = (&bench.world, &bench.console);
    let _worker = world.worker(&WorkerOptions::default());
    let id = bench.refused(planted().to_string()).await;
    let page = bench.page(&bench.admin, id).await;
    let view = bench.view(id).await;
    let listed = console
        .json(
            &bench.operator,
            "/dead-letters?code=unknown_organization&source=tests",
        )
        .await;
    assert_eq!(listed["letters"][0]["id"], json!(id));
    for text in PLANTED {
        for shown in [&page, &view.to_string(), &listed.to_string()] {
            assert!(!shown.contains(text), "{text} is in {shown}");
        }
    }
    assert_eq!(view["body"]["dedupe_key"], "planted-1");
    assert_eq!(view["body"]["events"][0]["shared_secret"], "secret");
    assert_eq!(
        view["body"]["events"][0]["payload"]["eventType"],
        "workitem.updated"
    );
    assert!(page.contains("would be refused now") && page.contains("newcomer"));
    let acceptance = &view["acceptance"];
    assert_eq!(
        (&acceptance["accepted"], &acceptance["code"]),
        (&json!(false), &json!("unknown_organization"))
    );

    let document = json!({"organizations": [{"slug": "newcomer", "name": "Newcomer"}]});
    let import = world.dispatch(&["tracker", "import", "-"]);
    import.stdin(document.to_string()).done().await;
    assert_eq!(bench.view(id).await["acceptance"]["accepted"], json!(true));
    assert!(
        bench
            .page(&bench.operator, id)
            .await
            .contains("would be accepted now")
    );

    is_replayed_once(&bench, id).await;
}

/// Has the letter replayed, with one request that is sent several times.
async fn is_replayed_once(bench: &Bench, id: i64) {
    let (world, console) = (&bench.world, &bench.console);
    let replay = async || {
        let path = format!("/api/v1/dead-letters/{id}/replay");
        let request = console
            .request(Method::POST, &path)
            .bearer_auth(&bench.operator);
        let request = request.header("idempotency-key", "k1");
        let request = request.json(&json!({"reason": "imported"}));
        let answer = request.send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (one, two) = tokio::join!(replay(), replay());
    assert_eq!((one.0, &one.1["changed"]), (200, &json!(true)));
    assert_eq!(one, two, "a repetition has the same answer");
    let resolved = bench.wait_replayed(id).await;
    assert_eq!(replay().await, one);
    assert_eq!(
        (&resolved["resolved_by"], &resolved["resolved_reason"]),
        (&json!("ann"), &json!("imported"))
    );
    wait_for("the job", SOON, async || {
        world.job_by_key("planted-1").await.ok_or("no job")
    })
    .await;
    let audit = "SELECT who, role, reason, coalesce(after ->> 'replay', after ->> 'resolution')
        FROM audit_log WHERE action = 'dead_letter.replay' ORDER BY id";
    let row = |what: &str| {
        ["ann", "operator", "imported", what]
            .map(str::to_owned)
            .to_vec()
    };
    assert_eq!(
        world.database.rows(audit).await,
        [row("wanted"), row("replayed")]
    );
}

#[tokio::test]
async fn hostile_letters_are_shown_as_text_only_and_unmasked_for_one_answer() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let _worker = world.worker(&WorkerOptions::default());
    let script = "{\"<script>alert(1)</script>\": \"\u{1b}[2J\u{202e}\", \"x\": ";
    let wide =
        json!({"schema": 1, "source": "tests", "dedupe_key": "wide", "surch": vec![0; 400_000]})
            .to_string();
    let mut letters = Vec::new();
    for body in [
        script.as_bytes().to_vec(),
        format!("{script}1}}").into_bytes(),
        vec![0xff, 0x00, b'<', b'b', b'>'],
        wide.into_bytes(),
        vec![b' '; (1 << 20) + 1],
    ] {
        letters.push(bench.refused(body).await);
    }
    for id in &letters {
        let page = bench.page(&bench.admin, *id).await;
        assert!(page.len() < 200_000, "letter {id}: {} bytes", page.len());
        for acting in ["<script>alert", "<b>", "\u{1b}", "\u{202e}", "\0"] {
            assert!(!page.contains(acting), "letter {id}: {acting:?}");
        }
        assert_eq!(bench.view(*id).await["id"], json!(id));
    }
    let list = bench
        .console
        .request(Method::GET, "/dead-letters?limit=200");
    let list = list.bearer_auth(&bench.operator).send().await.unwrap();
    assert!(!list.text().await.unwrap().contains("<script>alert"));

    are_unmasked_for_one_answer(&bench, &letters).await;
    cannot_be_replayed(&bench, letters[4]).await;
    let open = bench.console.json(&bench.operator, "/dead-letters").await;
    assert_eq!(open["letters"].as_array().unwrap().len(), letters.len() - 1);
    let all = bench
        .console
        .json(&bench.operator, "/dead-letters?all=true&limit=1")
        .await;
    assert_eq!(all["letters"][0]["id"], json!(letters[4]));
    let next = all["next"].as_str().unwrap();
    let older = format!("/dead-letters?all=true&before={next}");
    let older = bench.console.json(&bench.operator, &older).await;
    assert_eq!(older["letters"][0]["id"], json!(letters[3]));
}

/// Unmasks letters: a script, and bytes that are not UTF-8.
async fn are_unmasked_for_one_answer(bench: &Bench, letters: &[i64]) {
    let world = &bench.world;
    let reason = [("reason", "compare".to_owned())];
    let (status, page) = bench.post_form(letters[0], "unmask", &reason).await;
    assert_eq!(status, 200);
    assert!(
        page.contains("&lt;script&gt;alert(1)") && !page.contains("<script>alert"),
        "{page}"
    );
    let unmasked = json!({"reason": "compare"});
    let (_, answer) = bench
        .post(&bench.admin, letters[2], "unmask", &unmasked)
        .await;
    assert_eq!(
        (&answer["is_utf8"], &answer["body"]),
        (&json!(false), &json!("\u{fffd}\0<b>"))
    );
    let (status, _) = bench
        .post(&bench.operator, letters[0], "unmask", &unmasked)
        .await;
    assert_eq!(status, 403);
    assert!(
        !bench
            .page(&bench.admin, letters[0])
            .await
            .contains("alert(1)"),
        "gone on reload"
    );
    let audit = "SELECT who, reason FROM audit_log WHERE action = 'dead_letter.show_raw'";
    assert_eq!(
        world.database.rows(audit).await,
        [["adam", "compare"], ["adam", "compare"]]
    );
}

/// Discards a letter of which only the beginning is stored.
async fn cannot_be_replayed(bench: &Bench, cut: i64) {
    let unmasked = json!({"reason": "compare"});
    let (status, problem) = bench.post(&bench.operator, cut, "replay", &unmasked).await;
    assert_eq!((status, &problem["code"]), (409, &json!("not_possible")));
    assert_eq!(
        bench
            .post(&bench.operator, cut, "discard", &unmasked)
            .await
            .0,
        403
    );
    assert_eq!(
        bench.post(&bench.admin, cut, "discard", &unmasked).await.0,
        200
    );
    for verb in ["discard", "replay"] {
        let (status, problem) = bench.post(&bench.admin, cut, verb, &unmasked).await;
        assert_eq!(status, 409, "{verb}: {problem}");
    }
    assert_eq!(
        bench.post(&bench.admin, 99, "discard", &unmasked).await.0,
        404
    );
}

#[tokio::test]
async fn controls_are_judged_as_a_worker_judges_them() {
    let bench = Bench::new().await;
    let judged = async |routing_key: &str, body: Value| {
        let body = body.to_string();
        let new = NewDeadLetter {
            routing_key,
            ..dead_letter(&body)
        };
        let store = bench.world.store();
        let kept = store.keep_dead_letter(&bench.world.keyring, &new);
        let view = bench.view(kept.await.unwrap()).await;
        (
            view["acceptance"]["code"].clone(),
            view["replay_obstacle"].is_null(),
        )
    };
    let nobody = "0195612e-9a00-7000-8000-000000000001";
    let configure = json!({"schema": 1, "job_id": nobody, "account": "x"});
    let cancel = json!({"schema": 1, "source": "tests", "dedupe_key": "x"});
    for (routing_key, body, code, is_replayable) in [
        ("configure", configure, json!("no_such_job"), true),
        ("cancel", cancel, Value::Null, true),
        (
            "cancel",
            json!({"schema": 1}),
            json!("invalid_request"),
            true,
        ),
        ("wake.dispatch", json!({}), json!("invalid_wake_up"), false),
        ("elsewhere", json!({}), json!("unknown_routing_key"), false),
    ] {
        assert_eq!(
            judged(routing_key, body).await,
            (code, is_replayable),
            "{routing_key}"
        );
    }
}
