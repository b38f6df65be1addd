//! A table of bad input. Each row is published to a real worker between valid messages. It ends as
//! a dead letter, as a waiting or parked job, or as an ignored event, with its reason code; it is
//! acked once, its neighbours succeed, and nothing is lost.

mod against_schema;
mod choices;
mod controls;
mod events;
mod fields;
mod limits;
mod properties;
mod raw;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::job::JobState;
use dispatch_worker::message::read_body;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{Checks, TestWorld, WorkerOptions, WorkerProcess, acme, wait_for};
use table::{EVENTS, End, Row, table};

const SOON: Duration = Duration::from_secs(30);
/// The failed attempts of rows that end as parked or waiting jobs.
const ATTEMPTS: &[(&str, &str)] = &[
    ("check_account", "deadline_exceeded"),
    ("check_account", "newer_version"),
    ("send_follow_ups", "unknown_destination"),
];

#[tokio::test]
async fn bad_input_ends_visibly_and_does_not_affect_its_neighbours() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    worker.ready().await;
    let known = good(&world, 0).await;
    world
        .wait_job_state(&good_key(0), JobState::Succeeded, SOON)
        .await;
    let mut fresh = Vec::new();
    for number in 0..EVENTS {
        fresh.push(changed(&world, number).await);
    }
    let rows = table(&known, fresh);
    for (row, number) in rows.iter().zip(1..) {
        match &row.raw {
            None => world.publish_raw(&row.message).await,
            Some(raw) => raw::publish(&world, &row.message, raw).await,
        }
        good(&world, number).await;
    }
    for number in 0..=rows.len() {
        let job = world
            .wait_job_state(&good_key(number), JobState::Succeeded, SOON)
            .await;
        assert_eq!(
            handled(&world, &job.dedupe_key).await,
            (1, Vec::new()),
            "{}",
            job.dedupe_key
        );
    }
    let letters = dead_letters(&world, &rows).await;
    for row in &rows {
        check(&world, row, &letters).await;
    }
    for name in [
        "not JSON",
        "a secret of the wrong type",
        "1 MiB + 1",
        "invalid UTF-8",
    ] {
        shows_its_body(
            &world,
            rows.iter().find(|row| row.name == name).expect("a row"),
            &letters,
        )
        .await;
    }
    nothing_is_lost_or_made_twice(&world, &worker, &rows).await;
    Checks { attempts: ATTEMPTS }.hold(&world).await;
}

fn good_key(number: usize) -> String {
    format!("good {number}")
}

/// Publishes a neighbour: a job with a genuine, new event and no destinations. Returns its
/// message.
async fn good(world: &TestWorld, number: usize) -> Value {
    let mut message = acme::job(&good_key(number), &changed(world, number).await);
    message["notify"] = json!([]);
    world.publish_job(&message).await;
    message
}

/// Returns a genuine event.
async fn changed(world: &TestWorld, number: usize) -> Value {
    let assignee = if number.is_multiple_of(2) {
        acme::ANN
    } else {
        acme::BOB
    };
    world.assign(acme::LONE_ITEM, Some(assignee)).await
}

/// Returns the number of accepted events of a job, and the reasons of the ignored ones.
async fn handled(world: &TestWorld, dedupe_key: &str) -> (usize, Vec<String>) {
    let job = world
        .job_by_key(dedupe_key)
        .await
        .expect("the job has a row");
    let view = world.job_view(job.id).await;
    let stage = view
        .checkpoints
        .iter()
        .find(|checkpoint| checkpoint.stage == "handle_events")
        .expect("the stage has run");
    for event in stage.output["accepted"].as_array().expect("a list") {
        assert_eq!(
            event["work_item_id"],
            acme::LONE_ITEM,
            "{dedupe_key}: {event}"
        );
    }
    let ignored = stage.output["ignored"].as_array().expect("a list");
    let reasons = ignored
        .iter()
        .map(|event| event["reason"].as_str().expect("a word").to_owned())
        .collect();
    (
        stage.output["accepted"].as_array().expect("a list").len(),
        reasons,
    )
}

/// Returns the output of `dispatch dead-letters show` for every dead letter, by the SHA-256 of its
/// body.
async fn dead_letters(world: &TestWorld, rows: &[Row]) -> BTreeMap<String, Value> {
    let expected = rows
        .iter()
        .filter(|row| matches!(row.end, End::DeadLetter(_)))
        .count();
    wait_for("every dead letter", SOON, async || {
        let count = world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await;
        if count.parse() == Ok(expected) {
            Ok(())
        } else {
            Err(format!("{count} of {expected}"))
        }
    })
    .await;
    let listed = world
        .dispatch(&["dead-letters", "list", "--limit", "1000"])
        .done()
        .await;
    let mut letters = BTreeMap::new();
    for row in listed.as_array().expect("a list") {
        let letter = world
            .dispatch(&["dead-letters", "show", &row["id"].to_string()])
            .done()
            .await;
        assert!(
            letter.get("body").is_none(),
            "a body is shown with --raw only: {letter}"
        );
        letters.insert(
            letter["body_sha256"].as_str().expect("a digest").to_owned(),
            letter,
        );
    }
    assert_eq!(
        letters.len(),
        expected,
        "each row is one dead letter: {listed}"
    );
    letters
}

async fn check(world: &TestWorld, row: &Row, letters: &BTreeMap<String, Value>) {
    let name = row.name;
    match &row.end {
        End::DeadLetter(code) => {
            let letter = letter_of(row, letters);
            assert_eq!(letter["code"], *code, "{name}: {letter}");
            assert!(
                letter["detail"]
                    .as_str()
                    .is_some_and(|detail| !detail.is_empty()),
                "{name}: {letter}"
            );
            assert_eq!(letter["body_bytes"], row.message.body.len(), "{name}");
            assert_eq!(
                letter["routing_key"],
                row.message.routing_key.replace('\0', "\u{fffd}"),
                "{name}"
            );
            let said = read_body(&row.message.body).unwrap_or_default();
            // A duplicate source is not shown.
            let said = said.get("source").filter(|_| !name.contains(" twice"));
            if let Some(source) = said.and_then(Value::as_str) {
                assert_eq!(letter["source"], source, "{name}: {letter}");
            }
            assert!(
                !letter.to_string().contains(acme::HOOK_SECRET),
                "{name}: a secret is shown: {letter}"
            );
        }
        End::Job(state, reason) => {
            let job = world.wait_job_state(name, *state, SOON).await;
            let said = job.wait_reason.as_ref().or(job.error_code.as_ref());
            assert_eq!(said.map(String::as_str), Some(*reason), "{name}: {job:?}");
        }
        End::Handled { accepted, ignored } => {
            world.wait_job_state(name, JobState::Succeeded, SOON).await;
            let ignored = ignored.iter().map(|reason| (*reason).to_owned()).collect();
            assert_eq!(handled(world, name).await, (*accepted, ignored), "{name}");
        }
        End::Nothing => assert!(world.job_by_key(name).await.is_none(), "{name}"),
    }
}

fn letter_of<'a>(row: &Row, letters: &'a BTreeMap<String, Value>) -> &'a Value {
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&row.message.body));
    letters
        .get(&sha256)
        .unwrap_or_else(|| panic!("{}: no dead letter has its body", row.name))
}

/// Checks that `--raw` shows the body as it was received, as text, in full up to 1 MiB, and that
/// this is audited with person and reason. Showing the dead letter without its body is not
/// audited.
async fn shows_its_body(world: &TestWorld, row: &Row, letters: &BTreeMap<String, Value>) {
    const WHY: &str = "its producer asks";
    let id = letter_of(row, letters)["id"].to_string();
    let raw = world
        .dispatch(&["dead-letters", "show", &id, "--raw", "--reason", WHY])
        .prints_secrets()
        .done()
        .await;
    let shown = raw["body"].as_str().expect("a text");
    let received = &row.message.body[..];
    let kept = if received.len() > 1 << 20 {
        &received[..4 << 10]
    } else {
        received
    };
    assert!(
        shown == String::from_utf8_lossy(kept),
        "{}: the shown body differs",
        row.name
    );
    let audit = format!(
        "SELECT who, role, action, reason FROM audit_log WHERE after ->> 'dead_letter_id' = '{id}'"
    );
    assert_eq!(
        world.database.rows(&audit).await,
        [["olga", "admin", "dead_letter.show_raw", WHY]],
        "{}",
        row.name
    );
}

/// Checks that every message is one row or one dead letter, that nothing is left in a queue or
/// redelivered, and that the log contains no unexpected error.
async fn nothing_is_lost_or_made_twice(world: &TestWorld, worker: &WorkerProcess, rows: &[Row]) {
    world.wait_quiet(SOON).await;
    let jobs = rows
        .iter()
        .filter(|row| matches!(row.end, End::Job(..) | End::Handled { .. }))
        .count()
        + rows.len()
        + 1;
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE parent_id IS NULL")
            .await,
        jobs.to_string()
    );
    let deliveries = async || counted(worker, "dispatch_deliveries_total").await;
    let before = deliveries().await;
    good(world, rows.len() + 1).await;
    world
        .wait_job_state(&good_key(rows.len() + 1), JobState::Succeeded, SOON)
        .await;
    world.wait_quiet(SOON).await;
    assert_eq!(
        deliveries().await,
        before + 1,
        "only the last neighbour was delivered since"
    );
    let letters = rows
        .iter()
        .filter(|row| matches!(row.end, End::DeadLetter(_)))
        .count();
    assert_eq!(
        counted(worker, "dispatch_dead_letters_total").await,
        letters
    );
    assert_eq!(
        counted(worker, "dispatch_wakeups_without_row_total").await,
        1
    );
    let log = worker.log();
    let is_alarm = |line: &&str| {
        line.contains("panicked")
            || line.contains("ERROR") && !line.contains("parked: a person must look")
    };
    let alarms: Vec<&str> = log.lines().filter(is_alarm).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
    assert!(!log.contains(acme::HOOK_SECRET), "a secret is in the log");
}

/// Returns the sum of a counter over its labels.
async fn counted(worker: &WorkerProcess, name: &str) -> usize {
    let metrics = worker.metrics().await;
    let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    let value = |line: &str| {
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse::<usize>().ok())
    };
    metrics.lines().filter(of_name).filter_map(value).sum()
}
