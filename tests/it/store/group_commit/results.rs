//! Each caller of a group receives its own result.

use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::engine::Next;
use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::{Claimed, CommitError, Intaken, NewJob, NotClaimed, WRITERS};
use tokio_util::sync::CancellationToken;

use super::{Bench, first_done, ours, run, stage_done};
use crate::support::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_postgres_refuses_does_not_fail_its_neighbours() {
    let bench = Bench::new().await;
    let mut jobs: Vec<_> = (0..20).map(|n| bench.job(&format!("good-{n}"))).collect();
    let bad = Arc::new(NewJob {
        source: "x".repeat(65),
        ..Arc::into_inner(bench.job("bad")).expect("the only one")
    });
    jobs.insert(7, Arc::clone(&bad));
    let answers = bench
        .together(jobs.iter().map(|job| bench.writer.intake(job)))
        .await;
    for (job, answer) in jobs.iter().zip(answers) {
        if job.id == bad.id {
            assert!(
                !answer
                    .expect_err("its source is too long")
                    .is_infrastructure()
            );
        } else {
            assert_eq!(ours(answer).job.id, job.id);
        }
    }
    assert_eq!(
        bench
            .database
            .one("SELECT count(*) FROM jobs WHERE state = 'running'")
            .await,
        "20"
    );
    // One group, repeated with a transaction per row. Fewer transactions would mean that the bad
    // row was not in the group.
    assert_eq!(
        bench
            .database
            .one("SELECT count(DISTINCT xmin::text) FROM jobs")
            .await,
        "20"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_calls_are_written_in_one_transaction() {
    let bench = Bench::new().await;
    let jobs: Vec<_> = (0..50).map(|n| bench.job(&format!("{n}"))).collect();
    let claims = bench.all_in_hand(&jobs).await;
    assert_eq!(
        bench
            .database
            .one("SELECT count(DISTINCT xmin::text) FROM jobs")
            .await,
        "1"
    );
    let commit = first_done();
    let done = bench
        .together(
            claims
                .iter()
                .map(|claim| bench.writer.commit(run(claim), &commit)),
        )
        .await;
    assert!(done.iter().all(|one| {
        one.as_ref()
            .is_ok_and(|one| one.state == JobState::Running && one.stage == "second")
    }));
    assert_eq!(
        bench
            .database
            .one("SELECT count(DISTINCT xmin::text) || ' ' || count(*) FROM checkpoints")
            .await,
        "1 50"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_twice_in_one_group_is_one_job_and_another_payload_is_a_conflict() {
    let bench = Bench::new().await;
    let (first, again) = (bench.job("same"), bench.job("same"));
    let other = Arc::new(NewJob {
        digest: [9; 32],
        ..Arc::into_inner(bench.job("same")).expect("the only one")
    });
    let answers = bench
        .together(
            [&first, &again, &other]
                .into_iter()
                .map(|job| bench.writer.intake(job)),
        )
        .await;
    let [one, two, three] = answers.try_into().expect("three answers");
    let claim = ours(one);
    assert!(
        matches!(two, Ok(Intaken::Known(id)) if id == claim.job.id),
        "{two:?}"
    );
    assert!(
        matches!(three, Ok(Intaken::Conflict(id)) if id == claim.job.id),
        "{three:?}"
    );
    assert_eq!(bench.database.one("SELECT count(*) FROM jobs").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_receives_its_own_result() {
    let bench = Bench::new().await;
    let jobs: Vec<_> = (0..3).map(|n| bench.job(&format!("{n}"))).collect();
    let claims = bench.all_in_hand(&jobs).await;
    // Another owner has raised the second job's epoch.
    let second = claims[1].job.id;
    bench
        .database
        .rows(&format!(
            "UPDATE jobs SET epoch = epoch + 1 WHERE id = '{second}'"
        ))
        .await;
    let (go_on, finish) = (first_done(), stage_done("first", Next::Finish));
    let commits = [&go_on, &go_on, &finish];
    let done = bench
        .together(
            claims
                .iter()
                .zip(commits)
                .map(|(claim, commit)| bench.writer.commit(run(claim), commit)),
        )
        .await;
    let [one, two, three] = done.try_into().expect("three answers");
    assert_eq!(
        one.expect("the claim is not fenced").state,
        JobState::Running
    );
    assert!(matches!(two, Err(CommitError::Fenced)), "{two:?}");
    let three = three.expect("the claim is not fenced");
    assert_eq!(
        (three.state, three.announcements.len()),
        (JobState::Succeeded, 1)
    );
    assert_eq!(
        three.announcements[0].routing_key.as_deref(),
        Some("job.succeeded")
    );
    let checkpoints = bench.database.one("SELECT count(*) FROM checkpoints").await;
    assert_eq!(checkpoints, "2", "the fenced commit has written none");
    // The event is kept until it is reported as published.
    assert_eq!(
        bench
            .database
            .one("SELECT count(*) FROM announcements WHERE routing_key = 'job.succeeded'")
            .await,
        "1"
    );
    bench
        .writer
        .announced(three.announcements.iter().map(|one| one.id).collect());
    let unknown = JobId::fresh();
    let claimed = bench
        .at_once(bench.writer.claim(bench.replica, unknown))
        .await;
    assert!(
        matches!(claimed, Ok(Claimed::Not(NotClaimed::NoRow))),
        "{claimed:?}"
    );
    assert_eq!(
        bench
            .database
            .one("SELECT count(*) FROM announcements WHERE routing_key = 'job.succeeded'")
            .await,
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_loads_the_checkpoints_and_a_refused_claim_returns_the_reason() {
    let bench = Bench::new().await;
    let jobs: Vec<_> = (0..2).map(|n| bench.job(&format!("{n}"))).collect();
    let claims = bench.all_in_hand(&jobs).await;
    let commit = first_done();
    drop(
        bench
            .together(
                claims
                    .iter()
                    .map(|claim| bench.writer.commit(run(claim), &commit)),
            )
            .await,
    );
    let first = claims[0].job.id;
    made_ready(&bench, first).await;
    let wanted = [first, claims[1].job.id];
    let [one, two] = bench
        .together(
            wanted
                .into_iter()
                .map(|job| bench.writer.claim(bench.replica, job)),
        )
        .await
        .try_into()
        .expect("two answers");
    let Ok(Claimed::Ours(claim)) = one else {
        panic!("{one:?}")
    };
    assert_eq!((claim.job.stage.as_str(), claim.job.epoch.0), ("second", 2));
    assert_eq!(
        claim
            .outputs
            .get("first")
            .expect("its checkpoint")
            .output
            .get(),
        "{\"done\":true}"
    );
    assert!(
        matches!(two, Ok(Claimed::Not(NotClaimed::NotDue))),
        "the job has an owner: {two:?}"
    );
    a_replica_with_an_expired_lease_claims_nothing(&bench, first).await;
}

async fn a_replica_with_an_expired_lease_claims_nothing(bench: &Bench, job: JobId) {
    bench
        .database
        .rows("UPDATE replicas SET alive_until = now() - interval '1 second'")
        .await;
    made_ready(bench, job).await;
    let late = bench.at_once(bench.writer.claim(bench.replica, job)).await;
    assert!(
        matches!(late, Ok(Claimed::Not(NotClaimed::LeaseLost))),
        "{late:?}"
    );
}

async fn made_ready(bench: &Bench, job: JobId) {
    bench
        .database
        .rows(&format!(
            "UPDATE jobs SET state = 'ready', owner = NULL WHERE id = '{job}'"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_prepared_on_an_empty_table_uses_the_index_when_the_table_is_full() {
    let bench = Bench::new().await;
    let claim = bench.in_hand("on an empty table").await;
    let commit = first_done();
    let end = CancellationToken::new();
    let work = async {
        bench
            .writer
            .commit(run(&claim), &commit)
            .await
            .expect("the claim is not fenced");
        drop(bench.writer.claim(bench.replica, claim.job.id).await);
        bench
            .database
            .rows(
                "INSERT INTO jobs (id, pipeline, source, dedupe_key, organization, schema, payload, state, stage)
                SELECT gen_random_uuid(), 'p', 's', n::text, 'acme', 1, '{}', 'succeeded', 'first' FROM generate_series(1, 20000) n",
            )
            .await;
        for n in 0..WRITERS * 4 {
            let job = bench.job(&format!("full-{n}"));
            let claim = ours(bench.writer.intake(&job).await);
            bench
                .writer
                .commit(run(&claim), &commit)
                .await
                .expect("the claim is not fenced");
            drop(bench.writer.claim(bench.replica, claim.job.id).await);
        }
        end.cancel();
    };
    let ((), ()) = tokio::join!(work, bench.writer.write_groups(end.clone()));
    let Bench {
        database, writer, ..
    } = bench;
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert_ne!(
        database.one(others).await,
        "0",
        "the writers have connections"
    );
    // The statistics of a connection are complete when it has ended.
    drop(writer);
    wait_for(
        "the writers' connections to end",
        Duration::from_secs(10),
        async || match database.one(others).await {
            left if left == "0" => Ok(()),
            left => Err(format!("{left} connections")),
        },
    )
    .await;
    let read = database
        .one("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'jobs'")
        .await;
    assert!(
        read.parse::<u64>().expect("a number") < 20_000,
        "the whole table was read: {read} rows"
    );
}
