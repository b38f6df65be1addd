//! `not_before` and `deadline`: a job does not start before the one and has no effects after the
//! other, by the database's clock.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use serde_json::{Value, json};

use crate::support::{Checks, Listener, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// Returns a job about `item` whose `field` is a time of the database's clock, `seconds` from now.
async fn timed(world: &TestWorld, key: &str, item: i64, field: &str, seconds: u32) -> Value {
    let event = world.assign(item, Some(acme::ANN)).await;
    let mut message = acme::job(key, &event);
    let format = "'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'";
    let time =
        format!("SELECT to_char((now() + interval '{seconds} s') AT TIME ZONE 'UTC', {format})");
    message[field] = json!(world.database.one(&time).await);
    message
}

#[tokio::test]
async fn a_job_starts_at_its_not_before_and_not_earlier() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let message = timed(&world, "one", acme::LONE_ITEM, "not_before", 3).await;
    world.publish_job(&message).await;
    let row = world.wait_job_state("one", JobState::Ready, SOON).await;
    assert!(
        row.now < row.due_at && row.owner.is_none(),
        "the job is stored and waits: {row:?}"
    );
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    let in_time = "SELECT min(c.started_at) >= (j.payload ->> 'not_before')::timestamptz FROM checkpoints c
        JOIN jobs j ON j.id = c.job_id WHERE j.parent_id IS NULL GROUP BY j.id, j.payload ->> 'not_before'";
    assert_eq!(world.database.one(in_time).await, "t");
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_job_whose_next_attempt_would_miss_its_deadline_is_parked_at_once() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.parked")).await;
    let _worker = world.worker(&WorkerOptions::default());
    let patience = FaultRule {
        retry_after: Some(600),
        ..FaultRule::new(FaultKind::RateLimit)
    };
    world
        .simulator()
        .await
        .client
        .fault(&patience.path_contains(acme::PROFILE))
        .await
        .unwrap();
    let message = timed(&world, "one", acme::LONE_ITEM, "deadline", 60).await;
    world.publish_job(&message).await;
    let (_, parked) = listener.next("watch").await;
    assert_eq!(
        (&parked["error"]["code"], &parked["code"]),
        (&json!("deadline_exceeded"), &json!("deadline_exceeded"))
    );
    assert!(
        parked["error"]["hint"]
            .as_str()
            .is_some_and(|hint| !hint.is_empty()),
        "{parked}"
    );
    Checks {
        attempts: &[("retrieve_user", "deadline_exceeded")],
    }
    .hold(&world)
    .await;
}

#[tokio::test]
async fn a_follow_up_inherits_its_parent_s_deadline() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let patience = FaultRule {
        retry_after: Some(600),
        ..FaultRule::new(FaultKind::RateLimit)
    };
    world
        .simulator()
        .await
        .client
        .fault(&patience.path_contains("/webhook/keyed"))
        .await
        .unwrap();
    let mut message = timed(&world, "one", acme::LONE_ITEM, "deadline", 60).await;
    message["notify"] = json!([acme::KEYED]);
    world.publish_job(&message).await;
    wait_for("the follow-up to be parked", SOON, async || {
        let parked = "SELECT coalesce(string_agg(pipeline || ' ' || error_code, ','), '') FROM jobs WHERE state = 'parked'";
        match world.database.one(parked).await.as_str() {
            "messaging deadline_exceeded" => Ok(()),
            instead => Err(instead.to_owned()),
        }
    })
    .await;
    let same = "SELECT count(DISTINCT deadline) || ' of ' || count(deadline) FROM jobs";
    assert_eq!(world.database.one(same).await, "1 of 2");
    Checks {
        attempts: &[("deliver_message", "deadline_exceeded")],
    }
    .hold(&world)
    .await;
}

#[tokio::test]
async fn no_effect_follows_a_read_that_outlasts_the_deadline() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions {
        call_seconds: Some(60),
        ..WorkerOptions::default()
    });
    let client = &world.simulator().await.client;
    let slow = |path: &str, millis: u64| {
        FaultRule::new(FaultKind::Slow)
            .path_contains(path)
            .times(1)
            .millis(millis)
    };
    client
        .fault(&slow("/_apis/graph/users", 3_000))
        .await
        .unwrap();
    let mut message = timed(&world, "one", acme::WORK_ITEM, "deadline", 10).await;
    message["notify"] = json!([]);
    world.publish_job(&message).await;
    let hits = async || {
        client
            .faults()
            .await
            .unwrap()
            .iter()
            .map(|fault| fault.hits)
            .collect::<Vec<_>>()
    };
    wait_for("the follow-up to search for its user", SOON, async || {
        let hits = hits().await;
        if hits == [1] {
            Ok(())
        } else {
            Err(format!("{hits:?}"))
        }
    })
    .await;
    client
        .fault(&slow("/_apis/wit/workitemsbatch", 12_000))
        .await
        .unwrap();
    wait_for("the follow-up to be parked", SOON, async || {
        let parked = "SELECT coalesce(string_agg(stage || ' ' || error_code, ','), '') FROM jobs WHERE state = 'parked'";
        match world.database.one(parked).await.as_str() {
            "patch_work_item deadline_exceeded" => Ok(()),
            instead => Err(instead.to_owned()),
        }
    })
    .await;
    assert_eq!(hits().await, [1, 1], "the follow-up has read the work item");
    assert!(
        world.witness().iter().all(|entry| entry.method != "PATCH"),
        "nothing was written afterwards"
    );
    assert_eq!(
        world.database.one("SELECT count(*) FROM effects").await,
        "0"
    );
    Checks {
        attempts: &[("patch_work_item", "deadline_exceeded")],
    }
    .hold(&world)
    .await;
}
