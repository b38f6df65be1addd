//! `dispatch publish --wait` follows jobs to their outcomes, without a queue of its own.

use std::process::{Output, Stdio};
use std::time::Duration;

use dispatch_worker::devkit::guard;
use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::job::JobState;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{BINARY, Checks, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Starts `dispatch publish --wait` with one document per line.
async fn publish(world: &TestWorld, documents: &[Value], more: &[&str]) -> Child {
    let mut command = Command::new(BINARY);
    command
        .args(["publish", "--lines", "--wait"])
        .args(more)
        .env_clear()
        .kill_on_drop(true);
    command.env("DISPATCH_AMQP_URL", world.amqp_url.expose_secret());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin
        .write_all(lines.join("\n").as_bytes())
        .await
        .expect("it reads stdin");
    child
}

async fn ended(child: Child) -> (Output, String) {
    let output = tokio::time::timeout(SOON, child.wait_with_output())
        .await
        .expect("it ends")
        .expect("it was started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, text)
}

#[tokio::test]
async fn publish_wait_prints_the_acceptance_and_the_success_of_each_job() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    let mut documents = Vec::new();
    for key in ["one", "two"] {
        documents.push(acme::job(
            key,
            &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await,
        ));
    }
    let (output, text) = ended(publish(&world, &documents, &[]).await).await;
    assert!(output.status.success(), "{output:?}");
    for key in ["one", "two"] {
        let job = world.job_by_key(key).await.unwrap().id;
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with(&format!("{} {key}: ", acme::SOURCE)))
            .collect();
        let [accepted, succeeded] = &lines[..] else {
            panic!("{text}")
        };
        assert!(
            accepted.contains(&format!("accepted as job {job}"))
                && succeeded.ends_with(": succeeded"),
            "{text}"
        );
    }
    // A repeated message is answered with the job's state at once.
    let (output, text) = ended(publish(&world, &documents[..1], &["--json"]).await).await;
    let answer: Value = serde_json::from_str(&text).expect("one JSON document");
    assert!(
        output.status.success() && answer[0]["outcome"]["event"] == "job.succeeded",
        "{answer}"
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE parent_id IS NULL")
            .await,
        "2"
    );
    assert!(
        !worker
            .log()
            .contains("outcome events or replies are dropped"),
        "a direct reply is not returned"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_message_published_twice_is_one_job_and_has_two_outcomes() {
    let world = TestWorld::acme().await;
    let document = acme::job("one", &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await);
    let both = publish(&world, &[document.clone(), document.clone()], &["--json"]).await;
    // Both wait for a worker, so that the second one arrives while the job runs.
    wait_for("both messages", SOON, async || {
        let depth = world.queue_depth("dispatch.jobs").await;
        if depth.ready == 2 {
            Ok(())
        } else {
            Err(format!("{depth:?}"))
        }
    })
    .await;
    let _worker = world.worker(&WorkerOptions::default());
    let outcomes = |text: &str| {
        let answer: Value = serde_json::from_str(text).expect("one JSON document");
        answer
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["outcome"]["event"].clone())
            .collect::<Vec<_>>()
    };
    let (output, text) = ended(both).await;
    assert_eq!(
        (output.status.code(), outcomes(&text)),
        (Some(0), vec![json!("job.succeeded"); 2]),
        "{text}"
    );
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE parent_id IS NULL")
            .await,
        "1"
    );

    // Another message with the same key does not refer to that job: it is refused, and the others
    // are not.
    let mut other = document.clone();
    other["account"] = json!("another");
    let (output, text) =
        ended(publish(&world, &[document.clone(), other, document], &["--json"]).await).await;
    let expected = ["job.succeeded", "message.refused", "job.succeeded"].map(Value::from);
    assert_eq!(
        (output.status.code(), outcomes(&text)),
        (Some(1), expected.to_vec()),
        "{text}"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn an_outcome_other_than_success_is_printed_with_a_hint_and_exit_code_1() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = |key: &str| json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": key, "organization": "acme", "identity": "bot"});
    let (output, text) = ended(publish(&world, &[job("choose")], &[]).await).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("waits: configuration") && text.contains(&acme::account_id()),
        "{text}"
    );
    assert!(text.contains("dispatch jobs configure"), "{text}");

    let mut unknown = job("nobody");
    unknown["organization"] = json!("nobody");
    let (output, text) = ended(publish(&world, &[unknown], &[]).await).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("refused: unknown_organization"), "{text}");

    let mut other = job("choose");
    other["account"] = json!("another");
    let (output, text) = ended(publish(&world, &[other], &["--json"]).await).await;
    let answer: Value = serde_json::from_str(&text).expect("one JSON document");
    assert_eq!(
        (output.status.code(), &answer[0]["outcome"]["code"]),
        (Some(1), &json!("dedupe_conflict")),
        "{answer}"
    );

    let waiting = publish(
        &world,
        &[job("choose")],
        &["--keep-waiting", "--timeout", "60"],
    )
    .await;
    let id = world
        .wait_job_state("choose", JobState::Waiting, SOON)
        .await
        .id;
    world.publish_configure(id, &acme::account_id()).await;
    let (output, text) = ended(waiting).await;
    assert!(
        output.status.success() && text.trim_end().ends_with(": succeeded"),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_parked_follow_up_ends_publish_wait_with_a_hint_until_it_is_cancelled() {
    let world = TestWorld::acme().await;
    let mut over = State::new().click("9900", "canary-interaction-token", None);
    over.discord
        .clicks
        .get_mut("canary-interaction-token")
        .unwrap()
        .ended = true;
    world
        .simulator()
        .await
        .client
        .merge_state(&over)
        .await
        .unwrap();
    let _worker = world.worker(&WorkerOptions::default());
    let mut job = acme::job(
        "clicked",
        &world.assign(acme::LONE_ITEM, Some(acme::ANN)).await,
    );
    (job["notify"], job["interaction"]) = (
        json!([]),
        json!({"application_id": "9900", "token": "canary-interaction-token"}),
    );
    // The second time, the answer to the repeated message reports it.
    for _ in 0..2 {
        let (output, text) = ended(publish(&world, std::slice::from_ref(&job), &[]).await).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            text.contains("(messaging) is parked: interaction_expired: "),
            "{text}"
        );
    }
    let mut waiting = publish(&world, &[job], &["--keep-waiting", "--timeout", "60"]).await;
    let mut lines = BufReader::new(waiting.stdout.take().expect("it is piped")).lines();
    let line = lines
        .next_line()
        .await
        .expect("it is text")
        .expect("there is more to come");
    assert!(line.contains("interaction_expired"), "{line}");
    let parked = world
        .database
        .one("SELECT id FROM jobs WHERE state = 'parked'")
        .await;
    world
        .dispatch(&["jobs", "cancel", &parked, "--reason", "too late", "--yes"])
        .done()
        .await;
    let last = lines
        .next_line()
        .await
        .expect("it is text")
        .expect("there is more to come");
    assert!(
        last.ends_with(": succeeded") && waiting.wait().await.expect("it was started").success(),
        "{last}"
    );
}

#[tokio::test]
async fn publish_wait_gives_up_after_its_timeout_and_the_job_continues() {
    let world = TestWorld::acme().await;
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let (output, text) =
        ended(publish(&world, &[acme::job("one", &event)], &["--timeout", "1"]).await).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.as_str()), (Some(1), ""));
    assert!(said.contains("within 1 s; the jobs continue"), "{said}");
    let _worker = world.worker(&WorkerOptions::default());
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn publish_wait_survives_a_restart_of_the_broker_and_receives_the_outcome() {
    let world = TestWorld::with_own_servers().await;
    let _worker = world.worker(&WorkerOptions::default());
    let job = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "one", "organization": "acme", "identity": "bot"});
    let mut child = publish(&world, &[job], &["--keep-waiting"]).await;
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    for said in ["accepted as job", "waits: configuration"] {
        let line = lines
            .next_line()
            .await
            .expect("it is text")
            .expect("there is more to come");
        assert!(line.contains(said), "{line}");
    }
    let id = world
        .wait_job_state("one", JobState::Waiting, SOON)
        .await
        .id;
    world.server_command(guard::Command::RestartRabbitmq).await;
    let actor = dispatch_worker::store::Actor {
        who: "a test".to_owned(),
        role: dispatch_worker::store::Role::Admin,
        reason: None,
        request: None,
    };
    let target = dispatch_worker::store::Target::Id(id);
    world
        .store()
        .configure(&target, &acme::account_id(), "check_account", &actor)
        .await
        .expect("Postgres was not restarted");
    let mut last = String::new();
    while let Some(line) = tokio::time::timeout(SOON, lines.next_line())
        .await
        .expect("in time")
        .expect("it is text")
    {
        last = line;
    }
    let ended = child.wait().await.expect("it was started");
    assert!(ended.success() && last.ends_with(": succeeded"), "{last}");
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE parent_id IS NULL")
            .await,
        "1"
    );
}
