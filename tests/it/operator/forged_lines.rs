//! Text in messages and answers can neither forge lines in a worker's log nor control an
//! operator's terminal.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::FaultRule;
use dispatch_worker::escape::acts;
use dispatch_worker::job::JobState;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::{TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// A line in the worker's format, from a time before the project existed.
const FORGED: &str = "2001-01-01T00:00:00.000000Z ERROR dispatch_worker::worker: forged";

/// Returns a text that begins with a word, continues with a forged line, and contains terminal
/// control sequences.
fn hostile(word: &str) -> String {
    format!("{word}\r\n{FORGED}\u{1b}[2J\u{9b}2J\u{85}{FORGED}\u{2028}\u{202e}")
}

#[tokio::test]
async fn text_in_messages_and_answers_cannot_forge_log_lines() {
    let world = TestWorld::acme().await;
    // The name of an unknown field becomes part of the refusal, the answer part of the parked
    // job's error.
    let mut unknown = acme::job("unknown field", &json!({}));
    unknown[hostile("field")] = json!(1);
    let mut nowhere = acme::job("nowhere", &json!({}));
    // The limit is 64 characters.
    nowhere["organization"] =
        json!("organization\r\n2001-01-01T00:00:00Z INFO forged\u{1b}[2J\u{85}\u{202e}");
    let refusing = FaultRule::answering(403, hostile("answer")).path_contains(acme::PROFILE);
    world
        .simulator()
        .await
        .client
        .fault(&refusing)
        .await
        .expect("the simulator accepts the fault");
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let parked = hostile("key");
    let header = hostile("header");
    world.publish_job(&unknown).await;
    world.publish_job(&nowhere).await;
    world
        .publish_with_headers(
            &acme::job(&parked, &event),
            &[("traceparent", &header), (&header, "x")],
        )
        .await;
    let worker = world.worker(&WorkerOptions::default());
    world.wait_job_state(&parked, JobState::Parked, SOON).await;
    world.wait_quiet(SOON).await;
    wait_for(
        "the log lines of the dead letter and of the parked job",
        SOON,
        async || {
            let log = worker.log();
            let is_said = ["became a dead letter", "a person must look"]
                .iter()
                .all(|part| log.contains(part));
            if is_said { Ok(()) } else { Err(log) }
        },
    )
    .await;
    let log = worker.log();
    for line in log.lines() {
        assert!(!line.contains(acts), "{line:?}");
        let begins = line
            .split(' ')
            .next()
            .and_then(|time| OffsetDateTime::parse(time, &Rfc3339).ok());
        assert!(begins.is_some_and(|time| time.year() > 2001), "{line}");
    }
    let is_told = |part: &&str| {
        log.lines()
            .any(|line| line.contains(&format!("{part}\\r\\n2001-01-01T00:00:00")))
    };
    assert!(["field", "answer"].iter().all(is_told), "{log}");
}

#[tokio::test]
async fn text_in_messages_cannot_control_an_operator_s_terminal() {
    let world = TestWorld::acme().await;
    let mut unknown = acme::job(&hostile("key"), &json!({}));
    unknown[hostile("field")] = json!(1);
    world.publish_job(&unknown).await;
    let worker = world.worker(&WorkerOptions::default());
    wait_for("the dead letter", SOON, async || {
        match world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await
            .as_str()
        {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    drop(worker);
    let number = world.database.one("SELECT id FROM dead_letters").await;
    for arguments in [
        &["dead-letters", "list"][..],
        &["dead-letters", "show", &number],
    ] {
        let said = world.dispatch(arguments).said().await;
        assert!(
            said.code == Some(0) && said.stdout.contains("forged"),
            "{said:?}"
        );
        assert!(
            !said
                .stdout
                .contains(|character| character != '\n' && acts(character)),
            "{:?}",
            said.stdout
        );
        assert!(
            said.stdout.lines().all(|line| !line.starts_with("2001")),
            "{}",
            said.stdout
        );
        let answer = world
            .dispatch(&[arguments, &["--json"]].concat())
            .said()
            .await
            .stdout;
        assert!(
            !answer.contains(|character| character != '\n' && acts(character)),
            "{answer:?}"
        );
        assert!(answer.contains("\\u009b"), "JSON keeps the text: {answer}");
    }
}
