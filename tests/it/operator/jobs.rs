//! Commands that show jobs and act on them by the producer's key, and the list of destinations.

use std::time::Duration;

use dispatch_worker::job::JobState;
use dispatch_worker::store::JobRow;
use serde_json::{Value, json};

use crate::support::{Dispatch, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// Returns the command `dispatch jobs VERB` for the job with this key.
fn on(world: &TestWorld, verb: &str, key: &str, more: &[&str]) -> Dispatch {
    let job = ["jobs", verb, "--source", acme::SOURCE, "--key", key];
    world.dispatch(&[&job[..], more].concat())
}

/// Returns a message without events and notifications.
fn message(key: &str) -> Value {
    let mut message = acme::job(key, &Value::Null);
    (message["events"], message["notify"]) = (json!([]), json!([]));
    message
}

/// Creates a job that waits for an account.
async fn asking(world: &TestWorld, key: &str) -> JobRow {
    let mut message = acme::job(key, &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await);
    message["account"] = Value::Null;
    world.publish_job(&message).await;
    let job = world.wait_job_state(key, JobState::Waiting, SOON).await;
    assert_eq!(job.wait_reason.as_deref(), Some("configuration"));
    job
}

#[tokio::test]
async fn a_job_that_waits_for_an_account_is_shown_and_explained_and_continues_after_the_choice() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = asking(&world, "asks").await;
    let id = job.id.to_string();
    is_shown_and_explained(&world, &id).await;

    let account = acme::account_id();
    let choice = ["--account", &account, "--reason", "she said so", "--yes"];
    let unasked = on(&world, "configure", "asks", &choice[..4]).said().await;
    assert!(
        unasked.code == Some(2) && unasked.stderr.contains("use --yes"),
        "{unasked:?}"
    );
    let given = on(&world, "configure", "asks", &choice).done().await;
    let right = json!({"job_id": id, "action": "configure", "changed": true, "before": "waiting", "now": "ready"});
    assert_eq!(given, right);
    let row = world
        .wait_job_state("asks", JobState::Succeeded, SOON)
        .await;
    assert_eq!((row.id, row.generation), (job.id, 2));
    let again = on(&world, "configure", "asks", &choice).done().await;
    assert_eq!(
        (&again["changed"], &again["now"]),
        (&json!(false), &json!("succeeded")),
        "{again}"
    );
    let why = on(&world, "explain", "asks", &[]).done().await;
    assert_eq!(why["standing"], "done");
    let audit = "SELECT who, role, action, job_id, reason, after ->> 'account' FROM audit_log";
    assert_eq!(
        world.database.rows(audit).await,
        [["olga", "admin", "configure", &id, "she said so", &account]]
    );
}

async fn is_shown_and_explained(world: &TestWorld, id: &str) {
    let shown = on(world, "show", "asks", &[]).done().await;
    assert_eq!(
        (&shown["id"], &shown["state"]),
        (&json!(id), &json!("waiting")),
        "{shown}"
    );
    let checkpoints = shown["checkpoints"].as_array().unwrap();
    let stages: Vec<&str> = checkpoints
        .iter()
        .map(|checkpoint| checkpoint["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["check_account", "show_configuration"]);
    let page = on(world, "show", "asks", &[]).said().await;
    assert_eq!(page.code, Some(0), "{page:?}");
    for part in [
        id,
        "configuration (configuration:",
        "checkpoints",
        "show_configuration",
    ] {
        assert!(page.stdout.contains(part), "{part}: {page:?}");
    }
    let why = on(world, "explain", "asks", &[]).done().await;
    assert_eq!(
        (&why["job_id"], &why["standing"]),
        (&json!(id), &json!("waiting")),
        "{why}"
    );
    let sentence = on(world, "explain", "asks", &[]).said().await.stdout;
    for text in [sentence.as_str(), why["explanation"].as_str().unwrap()] {
        assert!(text.contains("for the choice of an account"), "{text}");
        assert!(
            text.contains(&format!("`dispatch jobs configure {id} --account ID`")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_retry_continues_a_job_that_is_due_later() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut later = message("later");
    later["not_before"] = acme::later();
    world.publish_job(&later).await;
    let job = world.wait_job_state("later", JobState::Ready, SOON).await;
    let why = on(&world, "explain", "later", &[]).done().await;
    assert_eq!(why["standing"], "later", "{why}");
    let now = on(
        &world,
        "retry",
        "later",
        &["--reason", "it is wanted now", "--yes"],
    )
    .done()
    .await;
    let right = json!({"job_id": job.id, "action": "retry", "changed": true, "before": "ready", "now": "ready"});
    assert_eq!(now, right);
    world
        .wait_job_state("later", JobState::Succeeded, SOON)
        .await;
    let audit = "SELECT who, role, reason FROM audit_log WHERE action = 'retry'";
    assert_eq!(
        world.database.rows(audit).await,
        [["olga", "admin", "it is wanted now"]]
    );
}

#[tokio::test]
async fn a_retry_continues_a_parked_job_and_repeats_no_finished_stage() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut lost = message("lost");
    lost["notify"] = json!(["new"]);
    world.publish_job(&lost).await;
    world.wait_job_state("lost", JobState::Parked, SOON).await;
    let parked = on(&world, "show", "lost", &[]).done().await;
    assert_eq!(
        (&parked["stage"], &parked["error_code"]),
        (&json!("send_follow_ups"), &json!("unknown_destination"))
    );
    let why = on(&world, "explain", "lost", &[]).done().await;
    assert!(
        why["explanation"]
            .as_str()
            .unwrap()
            .contains("there is no destination `new`"),
        "{why}"
    );
    world.register_new().await;
    let retried = on(
        &world,
        "retry",
        "lost",
        &["--reason", "it is there now", "--yes"],
    )
    .done()
    .await;
    assert_eq!(
        (&retried["before"], &retried["now"]),
        (&json!("parked"), &json!("ready")),
        "{retried}"
    );
    world
        .wait_job_state("lost", JobState::Succeeded, SOON)
        .await;
    let done = on(&world, "show", "lost", &[]).done().await;
    let [before, after] = [&parked, &done].map(|shown| shown["checkpoints"].as_array().unwrap());
    assert_eq!(after.len(), before.len() + 1, "{done}");
    assert_eq!(
        after[..before.len()],
        before[..],
        "no finished stage runs again"
    );
    let audit = "SELECT who, role, reason FROM audit_log WHERE action = 'retry'";
    assert_eq!(
        world.database.rows(audit).await,
        [["olga", "admin", "it is there now"]]
    );
}

#[tokio::test]
async fn a_cancelled_job_cannot_be_continued_and_its_audit_row_has_the_person_and_the_reason() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let id = asking(&world, "asks").await.id.to_string();
    let refused = async |verb: &str, more: &[&str], right: &str| {
        let said = on(&world, verb, "asks", more).said().await;
        assert!(
            said.code == Some(1) && said.stderr.contains(right),
            "{verb}: {said:?}"
        );
    };
    refused("retry", &["--yes"], "use `dispatch jobs configure`").await;
    let cancel = ["--reason", "nobody needs it", "--yes"];
    let cancelled = on(&world, "cancel", "asks", &cancel).done().await;
    let right = json!({"job_id": id, "action": "cancel", "changed": true, "before": "waiting", "now": "cancelled"});
    assert_eq!(cancelled, right);
    let row = world.job_by_key("asks").await.unwrap();
    assert_eq!(
        (row.state, row.wait_reason.as_deref()),
        (JobState::Cancelled, None)
    );
    assert!(row.finished_at.is_some());
    let again = on(&world, "cancel", "asks", &cancel).done().await;
    assert_eq!(
        (&again["changed"], &again["now"]),
        (&json!(false), &json!("cancelled")),
        "{again}"
    );
    refused(
        "retry",
        &["--yes"],
        "publish it again with a new dedupe_key",
    )
    .await;
    refused(
        "configure",
        &["--account", &acme::account_id(), "--yes"],
        "it does not wait for an account",
    )
    .await;
    let why = on(&world, "explain", "asks", &[]).done().await;
    assert!(
        why["explanation"]
            .as_str()
            .unwrap()
            .starts_with("Cancelled at"),
        "{why}"
    );
    let audit = "SELECT who, role, action, job_id, reason, before ->> 'state', after ->> 'state' FROM audit_log";
    let right = [
        "olga",
        "admin",
        "cancel",
        &id,
        "nobody needs it",
        "waiting",
        "cancelled",
    ];
    assert_eq!(
        world.database.rows(audit).await,
        [right],
        "refused and repeated actions leave no row"
    );
}

#[tokio::test]
async fn a_key_without_a_job_of_its_producer_ends_every_command_with_exit_code_1() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut other = message("theirs");
    other["source"] = json!("another producer");
    world.publish_job(&other).await;
    wait_for("the other producer's job to succeed", SOON, async || {
        let state = world.database.rows("SELECT state FROM jobs").await.concat();
        if state == ["succeeded"] {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    })
    .await;
    world
        .dispatch(&[
            "jobs",
            "show",
            "--source",
            "another producer",
            "--key",
            "theirs",
        ])
        .done()
        .await;
    let commands: [(&str, &[&str]); 5] = [
        ("show", &[]),
        ("explain", &[]),
        ("retry", &["--yes"]),
        ("cancel", &["--yes"]),
        ("configure", &["--account", "any", "--yes"]),
    ];
    for (verb, more) in commands {
        let said = on(&world, verb, "theirs", more).said().await;
        assert!(
            said.code == Some(1) && said.stdout.is_empty(),
            "{verb}: {said:?}"
        );
        assert!(
            said.stderr.contains("there is no such job"),
            "{verb}: {said:?}"
        );
    }
    assert_eq!(
        world.database.one("SELECT count(*) FROM audit_log").await,
        "0"
    );
}

#[tokio::test]
async fn destinations_are_listed_by_name_and_kind_without_their_secrets() {
    let world = TestWorld::acme().await;
    let rotate = [
        "destinations",
        "rotate-secret",
        acme::KEYED,
        "--organization",
        "acme",
        "--yes",
    ];
    world
        .dispatch(&rotate)
        .stdin(acme::NEW_WEBHOOK_SECRET)
        .done()
        .await;
    let right = [
        ["acme", acme::BLIND, "webhook"],
        ["acme", acme::DISCORD, "discord"],
        ["acme", acme::KEYED, "webhook"],
        ["aside", "mail", "email"],
        ["aside", "slack", "slack"],
        ["aside", "teams", "teams"],
    ];
    let listed = world.dispatch(&["destinations", "list"]).done().await;
    let rows = listed.as_array().unwrap();
    let named = |row: &Value| {
        ["organization", "name", "kind"].map(|field| row[field].as_str().unwrap().to_owned())
    };
    assert_eq!(rows.iter().map(named).collect::<Vec<_>>(), right);
    assert!(
        rows.iter().all(|row| row["has_secret"] == json!(true)),
        "{listed}"
    );
    assert!(rows[2]["previous_secret_until"].is_string(), "{listed}");
    let page = world.dispatch(&["destinations", "list"]).said().await;
    assert_eq!(page.code, Some(0), "{page:?}");
    let lines = page
        .stdout
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().take(3).collect::<Vec<_>>());
    assert_eq!(lines.collect::<Vec<_>>(), right);
    let of_one = world
        .dispatch(&["destinations", "list", "--organization", "aside"])
        .done()
        .await;
    assert_eq!(of_one, json!(rows[3..]));

    let sealed =
        "SELECT unnest(array_remove(ARRAY[secret, previous_secret], NULL)) FROM destinations";
    let sealed = world.database.rows(sealed).await.concat();
    assert_eq!(
        sealed.len(),
        rows.len() + 1,
        "one secret of each destination and one previous secret"
    );
    for text in [listed.to_string(), page.stdout] {
        for secret in sealed
            .iter()
            .map(String::as_str)
            .chain(["canary", "whsec_", "xoxb-", "sig="])
        {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
