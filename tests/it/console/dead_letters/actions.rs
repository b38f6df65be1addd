//! Dead letters are replayed and corrected: what a correction may name, and what a crash or a failure
//! leaves.

use dispatch_worker::broker::{INTAKE_QUEUE, KEY_JOB, WAKE, topology};
use dispatch_worker::job::JobState;
use dispatch_worker::secrets::Keyring;
use dispatch_worker::store::NewDeadLetter;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::Bench;
use crate::console::SOON;
use crate::operator::dead_letters::{letter, message};
use crate::support::{TestWorld, WorkerOptions, dead_letter, lanes, wait_for};

#[tokio::test]
async fn a_letter_is_corrected_and_keeps_the_names_of_the_original() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let _worker = world.worker(&WorkerOptions::default());
    let right = message("fixed-1");
    let mut wrong = right.clone();
    wrong["search"] = json!({"text": "planted search", "limit": "many"});
    let id = bench.refused(wrong.to_string()).await;
    let view = bench.view(id).await;
    assert_eq!(view["at_fault"], "search.limit", "{view}");
    let page = bench.page(&bench.admin, id).await;
    assert_eq!(page.matches("<mark>").count(), 1, "{page}");
    assert!(page.contains("<mark>&quot;limit&quot;"), "{page}");

    what_is_not_the_original_s_is_refused(&bench, id, &right).await;
    is_previewed(&bench, id, &right).await;
    assert_eq!(bench.view(id).await, view, "nothing was changed");

    let fields = |dry_run: &str| {
        [
            ("body", right.to_string()),
            ("reason", "corrected".to_owned()),
            ("dry_run", dry_run.to_owned()),
        ]
    };
    let (status, page) = bench.post_form(id, "fix", &fields("true")).await;
    assert!(
        status == 200 && page.contains("<code>search</code>"),
        "{page}"
    );
    assert!(!page.contains("planted search"), "{page}");
    let (status, _) = bench.post_form(id, "fix", &fields("false")).await;
    assert_eq!(status, 303);
    let resolved = bench.wait_replayed(id).await;
    assert_eq!(resolved["fixed_by"], "adam");
    world
        .wait_job_state("fixed-1", JobState::Succeeded, SOON)
        .await;
    let audit = "SELECT who, before ->> 'body_sha256', after ->> 'body_sha256'
        FROM audit_log WHERE action = 'dead_letter.fix'";
    let expected =
        [&view["body_sha256"], &resolved["body_sha256"]].map(|hash| hash.as_str().unwrap());
    assert_ne!(expected[0], expected[1]);
    assert_eq!(
        world.database.rows(audit).await,
        [["adam", expected[0], expected[1]]]
    );
}

fn correction(body: &Value) -> Value {
    json!({"body": body.to_string(), "reason": "corrected"})
}

async fn what_is_not_the_original_s_is_refused(bench: &Bench, id: i64, right: &Value) {
    let (status, _) = bench
        .post(&bench.operator, id, "fix", &correction(right))
        .await;
    assert_eq!(status, 403, "an operator corrects nothing");
    for (field, value, part) in [
        (
            "organization",
            json!("newcomer"),
            "at `organization`: expected \"acme\"",
        ),
        ("source", json!("other"), "at `source`: expected \"tests\""),
        ("search", json!({"text": ""}), "at `search.text`"),
        ("schema", json!(2), "at `schema`: expected 1"),
    ] {
        let mut other = right.clone();
        other[field] = value;
        let (status, problem) = bench
            .post(&bench.admin, id, "fix", &correction(&other))
            .await;
        assert_eq!(
            (status, &problem["code"]),
            (422, &json!("invalid_input")),
            "{field}"
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{detail}");
    }
}

/// Shows what a correction would change, in the console and by the command.
async fn is_previewed(bench: &Bench, id: i64, right: &Value) {
    let world = &bench.world;
    let mut dry = correction(right);
    dry["dry_run"] = json!(true);
    let (status, preview) = bench.post(&bench.admin, id, "fix", &dry).await;
    assert_eq!((status, &preview["changed"]), (200, &json!(false)));
    assert_eq!(preview["diff"][0]["path"], "search");
    assert!(!preview.to_string().contains("planted search"), "{preview}");
    let number = id.to_string();
    let line = ["dead-letters", "fix", &number, "--body", "-", "--dry-run"];
    let dry = world.dispatch(&line).stdin(right.to_string()).done().await;
    assert_eq!(
        (&dry["changed"], &dry["diff"]),
        (&json!(false), &preview["diff"])
    );
    let line = [
        "dead-letters",
        "list",
        "--code",
        "invalid_request",
        "--source",
        "tests",
    ];
    let listed = world.dispatch(&line).said().await;
    assert!(listed.stdout.contains("search.limit"), "{listed:?}");
}

#[tokio::test]
async fn a_letter_that_the_keyring_does_not_open_says_which_key_is_missing() {
    let bench = Bench::new().await;
    let setting = Keyring::fresh_setting();
    let lost = setting.expose_secret().replace("k1:", "lost:");
    let lost = Keyring::parse(&lost.into()).unwrap();
    let store = bench.world.store();
    let body = message("sealed").to_string();
    let kept = store.keep_dead_letter(&lost, &dead_letter(&body)).await;
    let id = kept.unwrap();
    let page = bench.page(&bench.admin, id).await;
    for part in ["sealed with key `lost`", "DISPATCH_KEYRING", "/discard"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    for verb in ["replay", "fix", "unmask"] {
        let form = format!("action=\"/dead-letters/{id}/{verb}\"");
        assert!(!page.contains(&form), "{verb}: {page}");
    }
    let view = bench.view(id).await;
    assert_eq!(
        (&view["form"], &view["body"]),
        (&json!("sealed"), &Value::Null)
    );
    let reason = json!({"reason": "drill"});
    let fix = json!({"body": body, "reason": "drill"});
    for (verb, input) in [("replay", &reason), ("fix", &fix), ("unmask", &reason)] {
        let (status, problem) = bench.post(&bench.admin, id, verb, input).await;
        assert_eq!(status, 409, "{verb}: {problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("sealed with key `lost`"), "{detail}");
    }
    let number = id.to_string();
    let shown = bench.world.dispatch(&["dead-letters", "show", &number]);
    let shown = shown.said().await;
    assert!(shown.stdout.contains("sealed with key `lost`"), "{shown:?}");
    let (status, _) = bench.post(&bench.admin, id, "discard", &reason).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn an_unreadable_letter_is_corrected_only_for_what_its_producer_may_name() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let keep = async |producer| {
        let new = NewDeadLetter {
            producer,
            ..dead_letter("not JSON")
        };
        let store = world.store();
        store.keep_dead_letter(&world.keyring, &new).await.unwrap()
    };
    let fix = json!({"body": message("read").to_string(), "reason": "asked its producer"});
    let register = async |organization: &str| {
        let line = [
            "producers",
            "register",
            "shop",
            "--source",
            "tests",
            "--organization",
        ];
        let line = [&line[..], &[organization, "--yes"]].concat();
        world.dispatch(&line).done().await;
    };
    let (status, problem) = bench
        .post(&bench.admin, keep(None).await, "fix", &fix)
        .await;
    assert_eq!(status, 422, "{problem}");
    let id = keep(Some("shop")).await;
    for organization in ["", "globex"] {
        if !organization.is_empty() {
            register(organization).await;
        }
        let (status, problem) = bench.post(&bench.admin, id, "fix", &fix).await;
        assert_eq!(status, 422, "{problem}");
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("must be registered")
        );
    }
    register("acme").await;
    let (status, fixed) = bench.post(&bench.admin, id, "fix", &fix).await;
    assert_eq!(
        (status, &fixed["original_is_readable"]),
        (200, &json!(false)),
        "{fixed}"
    );
    let (status, _) = bench.post(&bench.admin, id, "fix", &fix).await;
    assert_eq!(status, 409, "a worker is about to publish it");
    let _worker = world.worker(&WorkerOptions::default());
    world
        .wait_job_state("read", JobState::Succeeded, SOON)
        .await;
}

/// Makes the next try of every wanted replay due.
async fn due(world: &TestWorld) {
    let due = "UPDATE dead_letters SET replay_next_at = now() WHERE replay_next_at IS NOT NULL";
    world.database.rows(due).await;
}

#[tokio::test]
async fn a_worker_that_dies_before_the_mark_and_a_replay_that_fails_lose_nothing() {
    let bench = Bench::new().await;
    let world = &bench.world;
    let id = letter(world, &message("once")).await;
    let reason = json!({"reason": "again"});
    let (status, _) = bench.post(&bench.operator, id, "replay", &reason).await;
    assert_eq!(status, 200);
    let (_, again) = bench.post(&bench.operator, id, "replay", &reason).await;
    assert_eq!(again["changed"], json!(false), "it is wanted already");
    let mut dies = world.worker(&WorkerOptions::crash_at("replays", "after_publish"));
    dies.wait_exit(SOON).await;
    assert_eq!(bench.view(id).await["resolution"], Value::Null);
    let _worker = world.worker(&WorkerOptions::default());
    due(world).await;
    bench.wait_replayed(id).await;
    world
        .wait_job_state("once", JobState::Succeeded, SOON)
        .await;
    world.wait_quiet(SOON).await;
    assert_eq!(world.database.one("SELECT count(*) FROM jobs").await, "1");

    let url = world.amqp_url.expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let unbind = channel.queue_unbind(
        INTAKE_QUEUE.into(),
        WAKE.into(),
        KEY_JOB.into(),
        FieldTable::default(),
    );
    unbind.await.unwrap();
    let other = letter(world, &message("unroutable")).await;
    bench.post(&bench.operator, other, "replay", &reason).await;
    wait_for("the error on the page", SOON, async || {
        let page = bench.page(&bench.operator, other).await;
        if page.contains("dispatch topology declare") {
            Ok(())
        } else {
            Err(page)
        }
    })
    .await;
    topology::declare(&world.amqp_url, &lanes(), topology::Outdated::Keep)
        .await
        .unwrap();
    due(world).await;
    bench.wait_replayed(other).await;
    world
        .wait_job_state("unroutable", JobState::Succeeded, SOON)
        .await;
}
