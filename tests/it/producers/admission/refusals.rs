//! Messages that are refused: too far ahead, of no known schema, and replays in the name of another.

use dispatch_worker::broker::{EXCHANGE, KEY_JOB};
use lapin::BasicProperties;
use lapin::types::FieldTable;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{OTHERS, SOON, codes, confirmed, connected, job, with_mallory};
use crate::support::{TestWorld, WorkerOptions, acme, intake, wait_for};

#[tokio::test]
async fn a_dead_letter_is_replayed_for_its_original_producer() {
    let (world, mallory, _) = with_mallory().await;
    let _worker = world.worker(&WorkerOptions::default());
    world
        .database
        .rows("DELETE FROM organizations WHERE slug = 'globex'")
        .await;
    mallory
        .publish(&intake(job(OTHERS, "early", "globex").to_string()))
        .await
        .unwrap();
    assert_eq!(codes(&world, 1).await, ["unknown_organization"]);
    mallory
        .publish(&intake(job(acme::SOURCE, "foreign", "acme").to_string()))
        .await
        .unwrap();
    assert_eq!(codes(&world, 2).await[1], "not_permitted");
    world
        .database
        .rows("INSERT INTO organizations (slug, name) VALUES ('globex', 'Globex')")
        .await;
    world
        .dispatch(&["dead-letters", "replay", "--all", "--yes"])
        .done()
        .await;
    assert_eq!(
        codes(&world, 3).await[2],
        "not_permitted",
        "a replay by an operator gives the producer no more rights"
    );
    wait_for("the job", SOON, async || {
        let rows = world
            .database
            .rows("SELECT dedupe_key, producer FROM jobs")
            .await;
        if rows == [["early", &world.database.name]] {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await;
    let channel = connected(world.amqp_url.expose_secret()).await;
    let mut headers = FieldTable::default();
    headers.insert(
        "x-dispatch-replay".into(),
        lapin::types::AMQPValue::LongString("v1.k1.x.y".into()),
    );
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(headers);
    let body = job(acme::SOURCE, "forged", "acme").to_string();
    confirmed(&channel, EXCHANGE, KEY_JOB, body.as_bytes(), properties)
        .await
        .unwrap();
    assert_eq!(codes(&world, 4).await[3], "forged_replay");
}

#[tokio::test]
async fn a_job_too_far_ahead_or_one_that_no_worker_can_run_is_refused_with_its_code() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let with = |field: &str, value: Value| {
        let mut job = job(acme::SOURCE, field, "acme");
        job[field] = value;
        job
    };
    let days = |days| {
        let time = time::OffsetDateTime::now_utc() + time::Duration::days(days);
        json!(
            time.format(&time::format_description::well_known::Rfc3339)
                .expect("a time of this century")
        )
    };
    for (number, (message, code)) in [
        (with("not_before", days(31)), "not_before_too_far"),
        (with("schema", json!(3)), "unsupported_schema"),
        (with("schema", json!(i64::MAX)), "unsupported_schema"),
        (
            with("organization", json!("initech")),
            "unknown_organization",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        world.publish_job(&message).await;
        assert_eq!(codes(&world, number + 1).await[number], code, "{message}");
    }
    for message in [with("not_before", days(29)), with("schema", json!(2))] {
        world.publish_job(&message).await;
    }
    wait_for("both jobs", SOON, async || {
        let rows = world
            .database
            .rows("SELECT dedupe_key FROM jobs ORDER BY dedupe_key")
            .await
            .concat();
        if rows == ["not_before", "schema"] {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await;
}
