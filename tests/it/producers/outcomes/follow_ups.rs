//! A parked follow-up is announced as an event of its parent, once each time it is parked, for any
//! cause.

use std::time::Duration;

use dispatch_worker::broker::Outgoing;
use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::operations::retry;
use dispatch_worker::store::{Actor, Role, Target};
use serde_json::{Value, json};

use crate::support::{Listener, TestWorld, WorkerOptions, acme, intake, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// Takeovers without a commit in between after which a job is parked.
const CRASHES: i32 = 5;
const APPLICATION: &str = "9900";
const TOKEN: &str = "canary-interaction-token";
const FOLLOW_UP: &str = "job.waiting.follow_up";

/// Returns the world `acme` and a listener for the `job.waiting` events of its jobs.
async fn world() -> (TestWorld, Listener) {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("watch", Some("job.waiting.#")).await;
    (world, listener)
}

/// Returns a job about a change that notifies these destinations.
async fn job(world: &TestWorld, key: &str, to: Option<&str>, notify: &[&str]) -> Value {
    let mut job = acme::job(key, &world.assign(acme::LONE_ITEM, to).await);
    job["notify"] = json!(notify);
    job
}

/// Like [`job`], with an interaction that has expired: the follow-up that answers it is parked by
/// its own commit.
async fn too_late(world: &TestWorld, key: &str) -> Value {
    let mut over = State::new().click(APPLICATION, TOKEN, None);
    over.discord.clicks.get_mut(TOKEN).unwrap().ended = true;
    world
        .simulator()
        .await
        .client
        .merge_state(&over)
        .await
        .unwrap();
    let mut job = job(world, key, Some(acme::ANN), &[]).await;
    job["interaction"] = json!({"application_id": APPLICATION, "token": TOKEN});
    job
}

/// Asserts that the event describes the parent and its only follow-up. Returns the follow-up's id.
async fn is_announced(world: &TestWorld, key: &str, event: &Value, code: &str) -> JobId {
    let parent = world.job_by_key(key).await.unwrap();
    let [child] = &world.job_view(parent.id).await.children[..] else {
        panic!("one follow-up of {key}")
    };
    assert_eq!(
        (child.state, child.error_code.as_deref()),
        (JobState::Parked, Some(code))
    );
    assert_eq!(
        (&event["event"], &event["job_id"]),
        (&json!(FOLLOW_UP), &json!(parent.id)),
        "{event}"
    );
    assert_eq!(
        (&event["dedupe_key"], &event["state"]),
        (&json!(key), &json!("waiting")),
        "{event}"
    );
    assert_eq!(
        (&event["reason"], &event["wait_key"]),
        (&json!("children"), &json!("children")),
        "{event}"
    );
    let (message, hint) = (&child.error_message, &child.error_hint);
    let parked = json!({"job_id": child.id, "pipeline": "messaging", "code": code, "message": message, "hint": hint});
    assert_eq!(event["follow_up"], parked);
    child.id
}

async fn wait_states(world: &TestWorld, expected: &[&str]) {
    wait_for(
        &format!("the follow-ups to be {expected:?}"),
        SOON,
        async || {
            let sql = "SELECT state FROM jobs WHERE parent_id IS NOT NULL ORDER BY state";
            let states = world.database.rows(sql).await.concat();
            if states == expected {
                Ok(())
            } else {
                Err(format!("{states:?}"))
            }
        },
    )
    .await;
}

fn actor() -> Actor {
    Actor {
        who: "olga".to_owned(),
        role: Role::Admin,
        reason: None,
        request: None,
    }
}

#[tokio::test]
async fn a_follow_up_parked_by_its_commit_is_announced_at_both_places_each_time() {
    let (world, listener) = world().await;
    for queue in ["answers", "again"] {
        listener.queue(queue, None).await;
    }
    let _worker = world.worker(&WorkerOptions::default());
    let body = too_late(&world, "late").await.to_string();
    let send = async |queue: &str| {
        world
            .publish_raw(&Outgoing {
                reply_to: Some(queue.to_owned()),
                ..intake(body.clone())
            })
            .await;
    };
    send("answers").await;
    let (_, event) = listener.next("watch").await;
    let child = is_announced(&world, "late", &event, "interaction_expired").await;
    assert_eq!(listener.next("answers").await.1["event"], "job.accepted");
    assert_eq!(listener.next("answers").await.1, event);
    world.wait_quiet(SOON).await;
    assert!(
        listener.try_next("watch").await.is_none(),
        "it is announced once"
    );

    send("again").await;
    let (_, answer) = listener.next("again").await;
    assert_eq!(
        (&answer["event"], &answer["follow_up"]),
        (&json!(FOLLOW_UP), &event["follow_up"]),
        "{answer}"
    );
    retry(&world.store(), &actor(), &Target::Id(child))
        .await
        .unwrap();
    let (_, announced) = listener.next("watch").await;
    is_announced(&world, "late", &announced, "interaction_expired").await;
    assert_eq!(listener.next("again").await.1, announced);
    world
        .store()
        .cancel(&Target::Id(child), &actor())
        .await
        .unwrap();
    assert_eq!(listener.next("again").await.1["event"], "job.succeeded");
    world.wait_quiet(SOON).await;
    assert!(listener.try_next("watch").await.is_none(), "once each time");
}

#[tokio::test]
async fn a_follow_up_that_kills_its_workers_is_announced_once() {
    let (world, listener) = world().await;
    let deadly = WorkerOptions::crash_at("render_message", "after_claim");
    world
        .publish_job(&job(&world, "deadly", Some(acme::ANN), &[acme::KEYED]).await)
        .await;
    for _ in 0..CRASHES {
        let mut worker = world.worker(&deadly);
        assert!(!worker.wait_exit(SOON).await.success());
    }
    let _worker = world.worker(&WorkerOptions::default());
    let (_, event) = listener.next("watch").await;
    is_announced(&world, "deadly", &event, "crash_loop").await;
    world.wait_quiet(SOON).await;
    assert!(
        listener.try_next("watch").await.is_none(),
        "it is announced once"
    );
}

#[tokio::test]
async fn a_waiting_follow_up_whose_deadline_passes_is_announced_once_unless_its_parent_has_ended() {
    let (world, listener) = world().await;
    world
        .database
        .rows("UPDATE destinations SET disabled = true")
        .await;
    let _worker = world.worker(&WorkerOptions::default());
    for (key, to) in [("open", acme::ANN), ("ended", acme::BOB)] {
        world
            .publish_job(&job(&world, key, Some(to), &[acme::KEYED]).await)
            .await;
        world.wait_job_state(key, JobState::Waiting, SOON).await;
    }
    wait_states(&world, &["waiting"; 2]).await;
    let over = "UPDATE jobs SET state = 'cancelled', wait_reason = NULL, wait_key = NULL, finished_at = now()
        WHERE dedupe_key = 'ended'; UPDATE jobs SET deadline = now() - interval '1 second' WHERE parent_id IS NOT NULL";
    world.database.rows(over).await;
    let (_, event) = listener.next("watch").await;
    is_announced(&world, "open", &event, "deadline_exceeded").await;
    wait_states(&world, &["parked"; 2]).await;
    world.wait_quiet(SOON).await;
    assert!(
        listener.try_next("watch").await.is_none(),
        "a parent that has ended has no more events"
    );
}
