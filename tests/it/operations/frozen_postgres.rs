//! A frozen Postgres: every user of a connection drops it within 10 s, and nothing is lost.

use std::time::{Duration, Instant};

use dispatch_worker::devkit::guard::Command;
use dispatch_worker::job::JobState;
use dispatch_worker::store::{self, Store};
use secrecy::SecretString;

use crate::store::group_commit::{Bench, ours};
use crate::support::{
    Checks, Proxy, TestDatabase, TestWorld, WAITS_FOR_LOCK, WorkerOptions, WorkerProcess, acme,
    wait_for,
};

const SOON: Duration = Duration::from_secs(60);
/// The time limit from the freeze of Postgres.
const LEFT_WITHIN: Duration = Duration::from_secs(10);
const JOBS: usize = 30;

#[tokio::test]
async fn a_worker_drops_its_connections_within_10_s_and_every_job_succeeds_once_postgres_resumes() {
    let world = TestWorld::with_own_servers().await;
    let worker = world.worker(&WorkerOptions {
        concurrency: Some(8),
        ..WorkerOptions::default()
    });
    let keys: Vec<String> = (0..JOBS).map(|number| format!("job-{number}")).collect();
    let publish = async |number: usize| {
        let to = if number.is_multiple_of(2) {
            acme::ANN
        } else {
            acme::BOB
        };
        let event = world.assign(acme::WORK_ITEM, Some(to)).await;
        world.publish_job(&acme::job(&keys[number], &event)).await;
    };
    for number in 0..JOBS - 1 {
        publish(number).await;
    }
    world
        .wait_job_state(&keys[0], JobState::Succeeded, SOON)
        .await;
    // The lock ensures that a statement is in flight when Postgres freezes.
    let mut client = world.pool().get().await.expect("a connection");
    let lock = client.transaction().await.expect("a transaction");
    lock.batch_execute("LOCK TABLE jobs IN SHARE ROW EXCLUSIVE MODE")
        .await
        .expect("the lock");
    publish(JOBS - 1).await;
    wait_for(
        "a statement of the worker to wait",
        SOON,
        async || match world.database.one(WAITS_FOR_LOCK).await.as_str() {
            "0" => Err("none waits"),
            _ => Ok(()),
        },
    )
    .await;
    world.server_command(Command::FreezePostgres).await;
    drops_its_connections(&worker).await;
    world.server_command(Command::ThawPostgres).await;
    drop(lock);
    for key in &keys {
        world.wait_job_state(key, JobState::Succeeded, SOON).await;
    }
    worker.ready().await;
    Checks::default().hold(&world).await;
}

/// Statements in flight fail, and new ones do not hang.
async fn drops_its_connections(worker: &WorkerProcess) {
    wait_for(
        "the worker to drop its connections",
        LEFT_WITHIN,
        async || {
            if worker
                .log()
                .contains("owes an answer and has sent nothing for 9s")
            {
                Ok(())
            } else {
                Err("it has not")
            }
        },
    )
    .await;
    assert!(
        !worker
            .readiness()
            .await
            .expect("its operations server answers")
            .0
    );
    wait_for("new connections to time out", LEFT_WITHIN, async || {
        if worker.log().contains("no session within 3 s") {
            Ok(())
        } else {
            Err("they are not")
        }
    })
    .await;
}

#[tokio::test]
async fn reads_and_writes_fail_with_an_infrastructure_error_within_10_s() {
    let database = TestDatabase::new().await;
    // To a client, a silent connection looks the same as a frozen server.
    let proxy = Proxy::to(&database.url).await;
    let url = SecretString::from(proxy.url());
    let bench = Bench::by_way_of(&url, database).await;
    let store = Store::new(store::pool(&url, 2).expect("a pool"));
    ours(
        bench
            .at_once(bench.writer.intake(&bench.job("before")))
            .await,
    );
    let both = tokio::join!(store.check_writable(), store.check_writable());
    assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");

    proxy.fall_silent();
    let begun = Instant::now();
    let job = bench.job("after");
    let writes = bench.at_once(bench.writer.intake(&job));
    let (intaken, writable) = tokio::join!(writes, store.check_writable());
    for error in [intaken.map(|_| ()).unwrap_err(), writable.unwrap_err()] {
        assert!(error.is_infrastructure(), "{error:?}");
    }
    assert!(begun.elapsed() < LEFT_WITHIN, "{:?}", begun.elapsed());
    // The pool's other connections are equally old and must not be waited for as well.
    let begun = Instant::now();
    assert!(
        store
            .check_writable()
            .await
            .unwrap_err()
            .is_infrastructure()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}
