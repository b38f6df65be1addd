//! A job waits for its follow-ups and ends with the last of them, once.

use std::time::Duration;

use dispatch_worker::job::JobState;
use dispatch_worker::store::{ActionResult, Actor, Role, Target};

use crate::support::{Checks, Listener, TestWorld, WorkerOptions, acme};

const SOON: Duration = Duration::from_secs(60);
const JOBS: usize = 12;

#[tokio::test]
async fn a_parent_succeeds_once_when_its_follow_ups_finish_together() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("finished", Some("job.succeeded")).await;
    let _workers = [
        world.worker(&WorkerOptions::default()),
        world.worker(&WorkerOptions::default()),
    ];
    let keys: Vec<String> = (0..JOBS).map(|number| format!("job-{number}")).collect();
    for (number, key) in keys.iter().enumerate() {
        let to = if number % 2 == 0 {
            acme::ANN
        } else {
            acme::BOB
        };
        let event = world.assign(acme::LONE_ITEM, Some(to)).await;
        world.publish_job(&acme::job(key, &event)).await;
        // One after the other: concurrent jobs could read a later revision of the work item and
        // find no change to send.
        let row = world.wait_job_state(key, JobState::Succeeded, SOON).await;
        assert_eq!(
            (
                row.open_children,
                world.job_view(row.id).await.children.len()
            ),
            (0, 3)
        );
    }
    Checks::default().hold(&world).await;
    let mut announced = Vec::new();
    while let Some((_, event)) = listener.try_next("finished").await {
        announced.push(event["dedupe_key"].as_str().unwrap().to_owned());
    }
    announced.sort();
    let mut expected = keys;
    expected.sort();
    assert_eq!(
        announced, expected,
        "each parent is announced once, and no follow-up"
    );
}

#[tokio::test]
async fn cancelling_a_job_cancels_its_open_follow_ups() {
    let world = TestWorld::acme().await;
    world
        .database
        .rows("UPDATE destinations SET disabled = true")
        .await;
    let _worker = world.worker(&WorkerOptions::default());
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let row = world.wait_job_state("one", JobState::Waiting, SOON).await;
    assert_eq!(
        (row.wait_reason.as_deref(), row.open_children),
        (Some("children"), 3)
    );
    let actor = Actor {
        who: "olga".to_owned(),
        role: Role::Admin,
        reason: None,
        request: None,
    };
    let answer = world
        .store()
        .cancel(&Target::Id(row.id), &actor)
        .await
        .unwrap();
    assert_eq!(
        answer,
        ActionResult::Done {
            job: row.id,
            before: JobState::Waiting,
            now: JobState::Cancelled
        }
    );
    let states = world.database.rows("SELECT state FROM jobs").await.concat();
    assert_eq!(states, ["cancelled"; 4]);
    assert_eq!(
        world.witness().iter().filter(|entry| entry.effect).count(),
        0
    );
}
