//! The epoch as a fencing token: an operator's action on a job fences its owner.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use dispatch_worker::store::{ActionResult, Actor, Role, Target};

use crate::support::{Checks, TestWorld, WorkerOptions, wait_for};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn cancelling_a_running_job_fences_its_worker() {
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Slow).millis(1500))
        .await;

    let row = world.job_by_key("one").await.unwrap();
    let actor = Actor {
        who: "olga".to_owned(),
        role: Role::Admin,
        reason: Some("by mistake".to_owned()),
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
            before: JobState::Running,
            now: JobState::Cancelled
        }
    );
    wait_for("the worker to be fenced", SOON, async || {
        let metrics = worker.metrics().await;
        if metrics.contains("dispatch_fenced_total 1") {
            Ok(())
        } else {
            Err("it has not been fenced")
        }
    })
    .await;
    let view = world.job_view(row.id).await;
    assert_eq!((view.row.state, view.row.epoch), (JobState::Cancelled, 2));
    let stages: Vec<&str> = view
        .checkpoints
        .iter()
        .map(|one| one.stage.as_str())
        .collect();
    assert_eq!(
        stages,
        ["check_account", "fetch_states"],
        "the running stage has stored nothing"
    );
    let audited = "SELECT who || ' ' || action || ' ' || reason FROM audit_log";
    assert_eq!(world.database.one(audited).await, "olga cancel by mistake");
    Checks::default().hold(&world).await;
}
