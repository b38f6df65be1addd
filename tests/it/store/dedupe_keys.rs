//! Dedupe keys live as long as their jobs: the key of an old job always finds that job and never
//! another one.

use std::time::Duration;

use dispatch_worker::broker::{KEY_CANCEL, Outgoing};
use dispatch_worker::job::JobState;
use dispatch_worker::maintenance::Retention;
use dispatch_worker::store::{ActionResult, Actor, CancelByKey, Cancelling, Intaken, Role};
use dispatch_worker::tracker::Tracker;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::maintenance::retention::KEEP;
use crate::store::group_commit::{Bench, ours};
use crate::support::{Listener, TestWorld, WorkerOptions, acme, intake};

const SOON: Duration = Duration::from_secs(30);

/// Makes all jobs and keys 31 days older.
const OLDER: &str = "
    UPDATE job_keys SET job_id = aged.id, created_at = created_at - interval '31 days'
        FROM (SELECT id AS was, first_job_id_of(time_of_job_id(id) - interval '31 days') AS id FROM jobs) aged WHERE job_id = aged.was;
    UPDATE jobs SET id = first_job_id_of(time_of_job_id(id) - interval '31 days'), created_at = created_at - interval '31 days',
        last_progress_at = last_progress_at - interval '31 days', due_at = due_at - interval '31 days'";

fn cancel(dedupe_key: &str) -> CancelByKey<'_> {
    CancelByKey {
        source: "test",
        dedupe_key,
        producer: None,
        may_note: true,
    }
}

/// Returns the message of a job that waits for an account.
fn message(key: &str) -> Value {
    json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": key, "organization": "acme", "identity": "bot"})
}

/// Publishes a job, makes it 31 days older, and runs the retention until nothing is left to
/// delete.
async fn waiting_for_a_month(world: &TestWorld, key: &str) {
    world.publish_job(&message(key)).await;
    world.wait_job_state(key, JobState::Waiting, SOON).await;
    world.wait_quiet(SOON).await;
    world.database.rows(OLDER).await;
    let (retention, tracker) = (Retention::new(KEEP), Tracker::new(world.pool().clone()));
    while retention
        .round(&world.store(), &tracker, OffsetDateTime::now_utc())
        .await
        .unwrap()
    {}
}

#[tokio::test]
async fn a_job_that_has_waited_for_31_days_is_cancelled_by_its_key_and_the_next_job_is_not() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    waiting_for_a_month(&world, "old").await;
    let cancel = json!({"schema": 1, "source": acme::SOURCE, "dedupe_key": "old"}).to_string();
    world
        .publish_raw(&Outgoing {
            routing_key: KEY_CANCEL.to_owned(),
            ..intake(cancel)
        })
        .await;
    world.wait_job_state("old", JobState::Cancelled, SOON).await;
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM job_keys WHERE job_id IS NULL")
            .await,
        "0",
        "no cancel is stored for a later job"
    );
    world.publish_job(&message("next")).await;
    world.wait_job_state("next", JobState::Waiting, SOON).await;
}

#[tokio::test]
async fn repeating_the_message_of_a_job_that_has_waited_for_31_days_creates_no_second_job() {
    let world = TestWorld::acme().await;
    let listener = Listener::new(&world).await;
    listener.queue("answers", None).await;
    let _worker = world.worker(&WorkerOptions::default());
    waiting_for_a_month(&world, "old").await;
    let again = intake(message("old").to_string());
    world
        .publish_raw(&Outgoing {
            reply_to: Some("answers".to_owned()),
            ..again
        })
        .await;
    let (_, answer) = listener.next("answers").await;
    assert_eq!(answer["state"], "waiting", "{answer}");
    assert_eq!(
        world
            .database
            .rows(
                "SELECT dedupe_key, id::text = (SELECT min(job_id::text) FROM job_keys) FROM jobs"
            )
            .await,
        [["old", "t"]]
    );
}

#[tokio::test]
async fn a_key_is_reused_after_its_job_is_deleted_and_not_before() {
    let bench = Bench::new().await;
    let first = bench.job("k");
    let (made, again) = bench
        .at_once(async {
            (
                bench.writer.intake(&first).await,
                bench.writer.intake(&bench.job("k")).await,
            )
        })
        .await;
    ours(made);
    assert!(
        matches!(again, Ok(Intaken::Known(job)) if job == first.id),
        "{again:?}"
    );
    bench
        .database
        .rows("UPDATE job_keys SET created_at = now() - interval '400 days'")
        .await;
    let again = bench
        .at_once(async { bench.writer.intake(&bench.job("k")).await })
        .await;
    assert!(
        matches!(again, Ok(Intaken::Known(job)) if job == first.id),
        "an old key with a job: {again:?}"
    );
    bench
        .database
        .rows("DELETE FROM jobs; UPDATE job_keys SET created_at = now()")
        .await;
    let again = bench
        .at_once(async { bench.writer.intake(&bench.job("k")).await })
        .await;
    assert!(
        matches!(again, Ok(Intaken::Known(_))),
        "the job of a new key may not be visible yet: {again:?}"
    );
    bench
        .database
        .rows("UPDATE job_keys SET created_at = now() - interval '2 hours'")
        .await;
    let next = bench.job("k");
    let made = ours(
        bench
            .at_once(async { bench.writer.intake(&next).await })
            .await,
    );
    assert_eq!(made.job.id, next.id);
    assert_eq!(
        bench.database.one("SELECT job_id FROM job_keys").await,
        next.id.to_string()
    );
}

#[tokio::test]
async fn a_cancel_of_a_deleted_job_is_kept_for_30_days_for_the_next_job_with_its_key() {
    let bench = Bench::new().await;
    let store = bench.writer.store();
    let actor = Actor {
        who: "p".to_owned(),
        role: Role::Producer,
        reason: None,
        request: None,
    };
    let gone = bench.job("k");
    ours(
        bench
            .at_once(async { bench.writer.intake(&gone).await })
            .await,
    );
    bench
        .database
        .rows("DELETE FROM jobs; UPDATE job_keys SET created_at = now() - interval '2 hours'")
        .await;
    assert_eq!(
        store.cancel_by_key(&cancel("k"), &actor).await.unwrap(),
        Cancelling::Noted
    );
    let made = bench
        .at_once(async { bench.writer.intake(&bench.job("k")).await })
        .await;
    assert!(matches!(made, Ok(Intaken::Accepted(_))), "{made:?}");
    assert_eq!(
        bench.database.one("SELECT state FROM jobs").await,
        "cancelled"
    );

    let late = bench.job("late");
    assert_eq!(
        store.cancel_by_key(&cancel("late"), &actor).await.unwrap(),
        Cancelling::Noted
    );
    bench
        .database
        .rows("UPDATE job_keys SET created_at = now() - interval '31 days'")
        .await;
    let made = ours(
        bench
            .at_once(async { bench.writer.intake(&late).await })
            .await,
    );
    assert_eq!(made.job.id, late.id, "a cancel expires after 30 days");
    let answer = store.cancel_by_key(&cancel("late"), &actor).await.unwrap();
    assert!(
        matches!(answer, Cancelling::Answered(ActionResult::Done { job, .. }) if job == late.id),
        "{answer:?}"
    );
}
