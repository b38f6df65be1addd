//! The codes of jobs whose workers hang, die, are away from RabbitMQ, or are killed by the job.

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::StuckCode;

use super::{AFTER_AN_OUTAGE, Night};
use crate::console::SOON;
use crate::support::{ANY_ATTEMPT, Checks, Proxy, TestWorld, WorkerOptions, WorkerProcess, acme};

/// The number of takeovers without a commit in between after which a job is parked.
const CRASHES: i32 = 5;

/// Stores a job that is due in some days; a worker must run.
async fn later(night: &Night, key: &str) -> JobId {
    let event = night.world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let mut message = acme::job(key, &event);
    message["not_before"] = acme::later();
    night.world.publish_job(&message).await;
    let row = night.world.wait_job_state(key, JobState::Ready, SOON).await;
    row.id
}

/// Makes the rows of a job older: the thresholds are in minutes.
async fn age(night: &Night, key: &str, by: &str) {
    let sql = format!(
        "UPDATE jobs SET last_progress_at = last_progress_at - interval '{by}', due_at = due_at - interval '{by}',
            woken_at = woken_at - interval '{by}'
         WHERE dedupe_key = '{key}'"
    );
    night.world.database.rows(&sql).await;
}

/// Returns the id of a job of the world.
async fn id(night: &Night, key: &str) -> JobId {
    night
        .world
        .job_by_key(key)
        .await
        .expect("the job exists")
        .id
}

fn hang() -> FaultRule {
    FaultRule::new(FaultKind::Hang)
}

#[tokio::test]
async fn jobs_of_workers_that_hang_die_or_are_cut_off_finish_after_the_action_that_their_code_offers()
 {
    let night = Night::of(TestWorld::acme().await).await;
    // Longer than the drill: only a person ends the call.
    let patient = WorkerOptions {
        call_seconds: Some(60),
        ..WorkerOptions::default()
    };
    let first = night.world.worker(&patient);
    a_job_without_progress_is_parked_and_retried(&night).await;

    later(&night, "left").await;
    night.world.publish_held_up("orphan", hang()).await;
    first.kill9().await;
    let proxy = Proxy::to(&night.world.worker_amqp_url).await;
    let through = WorkerOptions {
        environment: [("DISPATCH_AMQP_URL".to_owned(), proxy.url())].into(),
        ..WorkerOptions::default()
    };
    let _worker = orphans_continue_when_a_worker_starts(&night, &through, &proxy).await;
    night.world.wait_quiet(AFTER_AN_OUTAGE).await;
    let checks = Checks {
        attempts: ANY_ATTEMPT,
    };
    checks.hold(&night.world).await;
}

async fn a_job_without_progress_is_parked_and_retried(night: &Night) {
    night.world.publish_held_up("hangs", hang()).await;
    age(night, "hangs", "20 minutes").await;
    let (id, code) = (id(night, "hangs").await, StuckCode::NoProgress);
    let page = night.finds(code, id, "dispatch jobs park").await;
    let explained = night.page(&format!("/jobs/{id}")).await;
    let command = format!("dispatch jobs park {id}");
    assert!(explained.contains(&command), "{explained}");
    let confirm = format!("/jobs/{id}/confirm/park");
    night.presses(&page, &confirm, &[]).await;
    night.retries(id).await;
    night.succeeds("hangs").await;
    night.are_gone(&[code]).await;
}

async fn orphans_continue_when_a_worker_starts(
    night: &Night,
    worker: &WorkerOptions,
    proxy: &Proxy,
) -> WorkerProcess {
    let (orphan, left) = (id(night, "orphan").await, id(night, "left").await);
    // Its lease ended long ago.
    let ended =
        "UPDATE replicas SET alive_until = now() - interval '1 minute' WHERE ended_at IS NULL";
    night.world.database.rows(ended).await;
    night.retries(left).await;
    age(night, "left", "2 minutes").await;
    let worker_starts = "dispatch worker";
    let dead = StuckCode::OwnerDead;
    let unserved = StuckCode::NoConsumers;
    let page = night.finds(dead, orphan, worker_starts).await;
    assert!(page.contains("href=\"/fleet\""), "{page}");
    night.finds(unserved, left, worker_starts).await;
    let worker = night.world.worker(worker);
    night.succeeds("orphan").await;
    night.succeeds("left").await;
    night.are_gone(&[dead, unserved]).await;

    let waits = later(night, "waits").await;
    proxy.cut_off();
    night.retries(waits).await;
    age(night, "waits", "2 minutes").await;
    let code = StuckCode::NotWoken;
    let page = night.finds(code, waits, "dispatch lanes").await;
    assert!(page.contains("RabbitMQ"), "{page}");
    // The page that the row leads to says what is wrong; the lanes have a replica that serves them.
    let fleet = night.console.json(&night.token, "/fleet").await;
    assert_eq!(fleet["replicas"].as_array().map(Vec::len), Some(1));
    let unserved = night.console.json(&night.token, "/stuck?code=no_consumers");
    assert_eq!(unserved.await[0]["count"]["n"], 0);
    proxy.connect_again();
    night.succeeds("waits").await;
    night.are_gone(&[code]).await;
    worker
}

#[tokio::test]
async fn a_job_that_kills_workers_finishes_when_it_is_retried_with_a_repaired_one() {
    let night = Night::of(TestWorld::acme().await).await;
    let world = &night.world;
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("deadly", &event)).await;
    let deadly = WorkerOptions::crash_at("retrieve_user", "after_intent");
    // The first worker commits two stages before its crash, which is progress; the second only
    // crashes.
    for _ in 0..2 {
        let mut worker = world.worker(&deadly);
        assert!(!worker.wait_exit(SOON).await.success());
    }
    // As after the crashes of three more workers, which `engine::crash_loop` has in full.
    let more = format!("UPDATE jobs SET crash_count = {}", CRASHES - 1);
    world.database.rows(&more).await;
    let _repaired = world.worker(&WorkerOptions::default());
    let parked = world.wait_job_state("deadly", JobState::Parked, SOON).await;
    let code = StuckCode::CrashLoop;
    let page = night.finds(code, parked.id, "dispatch jobs retry").await;
    night
        .finds(StuckCode::Parked, parked.id, "dispatch jobs retry")
        .await;
    let confirm = format!("/jobs/{}/confirm/retry", parked.id);
    night.presses(&page, &confirm, &[]).await;
    night.succeeds("deadly").await;
    night.are_gone(&[code, StuckCode::Parked]).await;
    Checks::default().hold(world).await;
}
