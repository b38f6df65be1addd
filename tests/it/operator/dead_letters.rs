//! Replays and discards of dead letters by a person.

use std::time::Duration;

use dispatch_worker::broker::{KEY_CONFIGURE, Outgoing};
use dispatch_worker::job::JobState;
use dispatch_worker::store::NewDeadLetter;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::maintenance::retention::KEEP;
use crate::support::{
    Listener, TestWorld, WorkerOptions, acme, count, dead_letter, intake, wait_for,
};

const SOON: Duration = Duration::from_secs(30);

/// Returns an intake message without events: its job succeeds and changes nothing.
pub(crate) fn message(key: &str) -> Value {
    let mut message = acme::job(key, &Value::Null);
    message["events"] = json!([]);
    message["notify"] = json!([]);
    message
}

/// Stores a dead letter of a valid message, as a defect of the worker would leave it.
pub(crate) async fn letter(world: &TestWorld, body: &Value) -> i64 {
    let body = body.to_string();
    world
        .store()
        .keep_dead_letter(&world.keyring, &dead_letter(&body))
        .await
        .expect("it is stored")
}

async fn open(world: &TestWorld) -> Vec<String> {
    let sql = "SELECT code FROM dead_letters WHERE resolved_at IS NULL ORDER BY id";
    world.database.rows(sql).await.concat()
}

#[tokio::test]
async fn a_replayed_message_has_its_original_properties_and_headers() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("answers", None).await;
    let mut body = message("unused");
    for field in ["source", "dedupe_key"] {
        body.as_object_mut().unwrap().remove(field);
    }
    let body = body.to_string();
    let came = NewDeadLetter {
        headers: json!({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-death": [{"count": 3}]}),
        message_id: Some("key-1".to_owned()),
        app_id: Some(acme::SOURCE.to_owned()),
        reply_to: Some("answers"),
        correlation_id: Some("c-17"),
        ..dead_letter(&body)
    };
    let id = world
        .store()
        .keep_dead_letter(&world.keyring, &came)
        .await
        .unwrap();
    let _worker = world.worker(&WorkerOptions::default());
    assert_eq!(listener.next("answers").await.1["event"], "message.refused");
    let said = world
        .dispatch(&[
            "dead-letters",
            "replay",
            &id.to_string(),
            "--yes",
            "--reason",
            "fixed",
        ])
        .done()
        .await;
    assert_eq!(
        said,
        json!({"resolution": "replayed", "done": [id], "not_done": [], "left": count(0)})
    );
    let (correlation_id, answer) = listener.next("answers").await;
    assert_eq!(
        (correlation_id.as_deref(), &answer["event"]),
        (Some("c-17"), &json!("job.accepted"))
    );
    let (correlation_id, answer) = listener.next("answers").await;
    assert_eq!(
        (correlation_id.as_deref(), &answer["event"]),
        (Some("c-17"), &json!("job.succeeded"))
    );
    assert_eq!(
        (&answer["source"], &answer["dedupe_key"]),
        (&json!(acme::SOURCE), &json!("key-1"))
    );
    let trace = world.database.one("SELECT traceparent FROM jobs").await;
    assert!(trace.starts_with("00-0af76519"), "{trace}");
    is_resolved_and_audited(&world, id).await;
}

async fn is_resolved_and_audited(world: &TestWorld, id: i64) {
    let sql = "SELECT resolution, resolved_by, resolved_reason, resolved_at IS NOT NULL FROM dead_letters";
    assert_eq!(
        world.database.rows(sql).await,
        [["replayed", "olga", "fixed", "t"]]
    );
    let audit = world
        .database
        .rows("SELECT action, who, role, reason, after ->> 'dead_letter_id' FROM audit_log")
        .await;
    assert_eq!(
        audit,
        [[
            "dead_letter.replay",
            "olga",
            "admin",
            "fixed",
            &id.to_string()
        ]]
    );
}

#[tokio::test]
async fn repeating_a_replay_that_died_before_its_mark_creates_no_second_job() {
    let world = TestWorld::acme().await;
    let id = letter(&world, &message("once")).await.to_string();
    let replay = ["dead-letters", "replay", &id, "--yes"];
    world.dispatch(&replay).done().await;
    // As if the process had died between the confirm and the mark.
    world
        .database
        .rows("UPDATE dead_letters SET resolution = NULL, resolved_at = NULL")
        .await;
    world.dispatch(&replay).done().await;
    let (code, again) = world.dispatch(&replay).answer().await;
    assert_eq!((code, &again["done"]), (Some(1), &json!([])));
    assert!(
        again["not_done"][0]["why"]
            .as_str()
            .unwrap()
            .contains("replayed already"),
        "{again}"
    );
    let _worker = world.worker(&WorkerOptions::default());
    world
        .wait_job_state("once", JobState::Succeeded, SOON)
        .await;
    world.wait_quiet(SOON).await;
    assert_eq!(world.database.one("SELECT count(*) FROM jobs").await, "1");
    assert_eq!(
        open(&world).await,
        Vec::<String>::new(),
        "neither message was refused"
    );
}

#[tokio::test]
async fn a_replayed_message_takes_effect_or_becomes_a_new_dead_letter() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut job = message("later");
    (job["account"], job["not_before"]) = (Value::Null, acme::later());
    world.publish_job(&job).await;
    let id = world
        .wait_job_state("later", JobState::Ready, SOON)
        .await
        .id;
    // The job does not wait for an account yet.
    let configure = json!({"schema": 1, "job_id": id, "account": acme::account_id()}).to_string();
    let headers = Map::from_iter([("n".to_owned(), json!(7))]);
    world
        .publish_raw(&Outgoing {
            routing_key: KEY_CONFIGURE.to_owned(),
            headers,
            ..intake(configure)
        })
        .await;
    world.publish_raw(&intake("not JSON")).await;
    wait_for("two dead letters", SOON, async || {
        match open(&world).await.len() {
            2 => Ok(()),
            n => Err(format!("{n}")),
        }
    })
    .await;
    let letter = world
        .database
        .one("SELECT id FROM dead_letters WHERE code = 'invalid_request'")
        .await;
    let shown = world
        .dispatch(&["dead-letters", "show", &letter, "--raw"])
        .prints_secrets()
        .done()
        .await;
    assert_eq!(shown["headers"], json!({"n": 7}));
    world.database.rows("UPDATE jobs SET due_at = now()").await;
    world.wait_job_state("later", JobState::Waiting, SOON).await;
    let said = world
        .dispatch(&["dead-letters", "replay", "--all", "--yes"])
        .done()
        .await;
    assert_eq!(said["done"].as_array().unwrap().len(), 2, "{said}");
    world
        .wait_job_state("later", JobState::Succeeded, SOON)
        .await;
    wait_for("the refusal", SOON, async || {
        match open(&world).await.as_slice() {
            [code] if code == "not_json" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await,
        "3"
    );
}

#[tokio::test]
async fn bulk_discards_respect_code_and_limit_and_require_consent() {
    let world = TestWorld::new().await;
    for n in 0..3 {
        letter(&world, &message(&n.to_string())).await;
    }
    let first = letter(&world, &json!({})).await - 3;
    discards_without_consent_or_with_two_selections_are_refused(&world).await;
    let none = world
        .dispatch(&[
            "dead-letters",
            "discard",
            "--all",
            "--code",
            "not_json",
            "--yes",
        ])
        .done()
        .await;
    assert_eq!(
        (&none["dead_letters"], &none["discarded"]),
        (&count(0), &json!(0))
    );
    let some = [
        "dead-letters",
        "discard",
        "--all",
        "--code",
        "no_such_job",
        "--limit",
        "2",
        "--yes",
    ];
    let said = world.dispatch(&some).done().await;
    assert_eq!((&said["discarded"], &said["left"]), (&json!(2), &count(2)));
    let resolved = world
        .database
        .rows("SELECT id FROM dead_letters WHERE resolved_at IS NOT NULL ORDER BY id")
        .await
        .concat();
    assert_eq!(resolved, [first.to_string(), (first + 1).to_string()]);
    let listed = world.dispatch(&["dead-letters", "list"]).done().await;
    assert_eq!(
        listed.as_array().unwrap().len(),
        2,
        "only open ones are listed"
    );
    let all = world
        .dispatch(&["dead-letters", "list", "--all"])
        .done()
        .await;
    assert_eq!(all[3]["resolution"], "discarded");
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM audit_log WHERE action = 'dead_letter.discard'")
            .await,
        "2"
    );
    assert_eq!(
        world.queue_depth("dispatch.jobs").await.ready,
        0,
        "nothing was published"
    );
}

async fn discards_without_consent_or_with_two_selections_are_refused(world: &TestWorld) {
    let refused = world
        .dispatch(&["dead-letters", "discard", "--all"])
        .said()
        .await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("use --yes"), "{refused:?}");
    for wrong in [&["--code", "x", "1"][..], &["1", "--all"], &[]] {
        let arguments = [&["dead-letters", "discard", "--yes"], wrong].concat();
        assert_eq!(
            world.dispatch(&arguments).said().await.code,
            Some(2),
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_replayed_stays_open() {
    let world = TestWorld::new().await;
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
    let cut = world
        .store()
        .keep_dead_letter(&world.keyring, &dead_letter(&long))
        .await
        .unwrap();
    let lost = NewDeadLetter {
        routing_key: "no.such.key",
        ..dead_letter("{}")
    };
    let lost = world
        .store()
        .keep_dead_letter(&world.keyring, &lost)
        .await
        .unwrap();
    let numbers = [cut.to_string(), lost.to_string()];
    let (code, said) = world
        .dispatch(&[
            "dead-letters",
            "replay",
            &numbers[0],
            &numbers[1],
            "999",
            "--yes",
        ])
        .answer()
        .await;
    assert_eq!((code, &said["done"]), (Some(1), &json!([])));
    let why = |n: usize| said["not_done"][n]["why"].as_str().unwrap().to_owned();
    assert!(why(0).contains("1048576 of its"), "{said}");
    assert!(
        why(1).contains("no queue is bound for the message"),
        "{said}"
    );
    assert!(why(2).contains("no such dead letter"), "{said}");
    assert_eq!(open(&world).await.len(), 2);
}

#[tokio::test]
async fn dead_letters_resolved_a_month_ago_are_deleted_and_open_ones_are_kept() {
    let world = TestWorld::new().await;
    let (open, put_aside) = (
        letter(&world, &message("one")).await,
        letter(&world, &message("two")).await,
    );
    let discard = [
        "dead-letters",
        "discard",
        &put_aside.to_string(),
        "--reason",
        "seen",
        "--yes",
    ];
    world.dispatch(&discard).done().await;
    let forget = async || {
        world
            .store()
            .forget_letters(&KEEP, OffsetDateTime::now_utc())
            .await
            .unwrap()
    };
    forget().await;
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM dead_letters")
            .await,
        "2",
        "it was discarded just now"
    );
    world.database.rows("UPDATE dead_letters SET created_at = created_at - interval '31 days', resolved_at = resolved_at - interval '31 days'").await;
    forget().await;
    assert_eq!(
        world.database.one("SELECT id FROM dead_letters").await,
        open.to_string()
    );
}
