//! The end of a replica: a crash counts against the jobs that it has in hand, an orderly end does
//! not.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::ReplicaId;
use dispatch_worker::store::{Claimed, Heartbeat, NewReplica, NotClaimed, connect};
use tokio::task::JoinSet;

use crate::store::group_commit::Bench;
use crate::support::{TestDatabase, TestWorld, WorkerOptions, wait_for};

const SOON: Duration = Duration::from_secs(30);

/// Begins an incarnation with a session of its own, which ends when the heartbeat is dropped.
pub(super) async fn begun(
    database: &TestDatabase,
    connections: &mut JoinSet<Result<(), tokio_postgres::Error>>,
) -> Heartbeat {
    let (client, connection) = connect(&database.url)
        .await
        .expect("Postgres accepts a connection");
    connections.spawn(connection);
    let new = NewReplica {
        version: "1".to_owned(),
        host: "h".to_owned(),
        pid: 2,
        process: uuid::Uuid::now_v7(),
        lanes: Vec::new(),
    };
    Heartbeat::begin(client, &new)
        .await
        .expect("Postgres answers")
}

/// Waits until another replica frees the only job. Returns its state, its crash count, and whether
/// it has an owner.
async fn freed(bench: &Bench) -> Vec<String> {
    wait_for("the job to be freed", SOON, async || {
        let freed = bench
            .writer
            .store()
            .free_dead(bench.replica)
            .await
            .expect("Postgres answers");
        if freed.due.len() == 1 {
            Ok(())
        } else {
            Err(format!("{freed:?}"))
        }
    })
    .await;
    bench
        .database
        .rows("SELECT state, crash_count, owner IS NOT NULL FROM jobs")
        .await
        .concat()
}

/// Creates a job that `owner` has in hand and on which an earlier owner has died.
async fn in_hand_of(owner: ReplicaId, bench: &mut Bench) {
    let me = std::mem::replace(&mut bench.replica, owner);
    bench.in_hand("one").await;
    bench.replica = me;
    bench.database.rows("UPDATE jobs SET crash_count = 1").await;
}

#[tokio::test]
async fn an_orderly_end_of_a_replica_does_not_count_as_a_crash_of_its_jobs() {
    let (mut bench, mut connections) = (Bench::new().await, JoinSet::new());
    let heartbeat = begun(&bench.database, &mut connections).await;
    in_hand_of(heartbeat.replica, &mut bench).await;
    heartbeat.end().await.expect("Postgres answers");
    assert_eq!(freed(&bench).await, ["ready", "1", "f"]);
}

#[tokio::test]
async fn the_death_of_a_replica_counts_as_a_crash_of_its_jobs() {
    let (mut bench, mut connections) = (Bench::new().await, JoinSet::new());
    let heartbeat = begun(&bench.database, &mut connections).await;
    in_hand_of(heartbeat.replica, &mut bench).await;
    drop(heartbeat);
    assert_eq!(freed(&bench).await, ["ready", "2", "f"]);
}

#[tokio::test]
async fn an_expired_or_ended_lease_is_not_renewed_and_claims_nothing() {
    for over in [
        "alive_until = now() - interval '1 second'",
        "ended_at = now()",
    ] {
        let (bench, mut connections) = (Bench::new().await, JoinSet::new());
        let heartbeat = begun(&bench.database, &mut connections).await;
        assert!(heartbeat.renew(false).await.unwrap());
        let job = bench.in_hand("one").await.job.id;
        bench
            .database
            .rows("UPDATE jobs SET state = 'ready', owner = NULL")
            .await;
        bench
            .database
            .rows(&format!(
                "UPDATE replicas SET {over} WHERE id = {}",
                heartbeat.replica
            ))
            .await;
        assert!(!heartbeat.renew(false).await.unwrap(), "{over}");
        let claimed = bench
            .at_once(bench.writer.claim(heartbeat.replica, job))
            .await;
        assert!(
            matches!(claimed, Ok(Claimed::Not(NotClaimed::LeaseLost))),
            "{over}: {claimed:?}"
        );
    }
}

#[tokio::test]
async fn a_drain_that_times_out_does_not_count_as_a_crash() {
    let world = TestWorld::acme().await;
    let environment = BTreeMap::from([("DISPATCH_DRAIN_SECONDS".to_owned(), "1".to_owned())]);
    let mut worker = world.worker(&WorkerOptions {
        environment,
        ..WorkerOptions::default()
    });
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Hang))
        .await;
    // As if this claim had committed nothing: then a crash of its owner counts.
    world
        .database
        .rows("UPDATE jobs SET committed_epoch = 0")
        .await;
    worker.terminate();
    worker.wait_exit(SOON).await;
    assert_eq!(
        world
            .database
            .one("SELECT state || ' ' || stage FROM jobs")
            .await,
        "running retrieve_user"
    );
    // The test acts as the other replica.
    let freed = world.store().free_dead(ReplicaId(0)).await.unwrap();
    assert_eq!(freed.due.len(), 1, "{freed:?}");
    assert_eq!(
        world
            .database
            .rows("SELECT state, crash_count FROM jobs")
            .await
            .concat(),
        ["ready", "0"]
    );
}
