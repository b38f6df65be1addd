//! The group writer: the calls of many callers share a transaction, and each caller receives its
//! own result.

mod mixed;

use std::sync::Arc;
use std::time::Duration;

use dispatch_worker::engine::{CheckpointRecord, Commit, Next, Record, Skipped};
use dispatch_worker::fault::StageFault;
use dispatch_worker::job::{JobId, JobState, ReplicaId};
use dispatch_worker::store::{
    self, Claim, Claimed, CommitError, Committed, Incoming, Intaken, NewJob, NotClaimed, Run,
    Store, StoreError, Tables, WRITERS, Writer,
};
use dispatch_worker::tracker::cause_present;
use futures_util::future::{BoxFuture, FutureExt, join, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::support::{TestDatabase, gate, wait_for};

/// A product whose stages change nothing. The causes that jobs wait for are those of the tracker.
pub(crate) struct NoChanges;

impl Tables for NoChanges {
    type Changes = ();

    fn apply<'a>(
        &'a self,
        _: &'a tokio_postgres::Transaction<'_>,
        _: JobId,
        _: &'a (),
    ) -> BoxFuture<'a, Result<Box<RawValue>, StageFault>> {
        std::future::ready(Ok(RawValue::NULL.to_owned())).boxed()
    }

    fn cause_present<'a>(
        &'a self,
        tx: &'a tokio_postgres::Transaction<'_>,
        key: &'a str,
        observed: i64,
    ) -> BoxFuture<'a, Result<Option<bool>, StageFault>> {
        async move { Ok(cause_present(tx, key, observed).await?) }.boxed()
    }
}

/// A writer with its own database and a live replica; the only pipeline is `p`, which begins with
/// the stage `first`.
pub(crate) struct Bench {
    pub(crate) database: TestDatabase,
    pub(crate) writer: Writer<NoChanges>,
    pub(crate) replica: ReplicaId,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::new().await;
        let url = database.url.clone();
        Self::by_way_of(&url, database).await
    }

    /// Creates a bench whose writers use this URL of the database.
    pub(crate) async fn by_way_of(url: &SecretString, database: TestDatabase) -> Self {
        let writers = store::writers_pool(url).expect("a pool");
        let writer = Writer::new(
            Store::new(database.pool.clone()),
            writers,
            NoChanges,
            [("p", "first")].into(),
        );
        let replica = database
            .one("INSERT INTO replicas (version, host, pid, alive_until, lanes) VALUES ('1', 'h', 1, now() + interval '1 hour', '{}') RETURNING id")
            .await;
        Self {
            database,
            writer,
            replica: ReplicaId(replica.parse().expect("an id")),
        }
    }

    pub(crate) fn job(&self, key: &str) -> Arc<NewJob> {
        Arc::new(NewJob {
            id: JobId::fresh(),
            pipeline: "p",
            stage: "first",
            producer: None,
            source: "test".to_owned(),
            dedupe_key: key.to_owned(),
            digest: [0; 32],
            organization: "acme".to_owned(),
            schema: 1,
            bytes: 2,
            payload: Incoming::Known(RawValue::from_string("{}".to_owned()).expect("JSON")),
            not_before: None,
            deadline: None,
            reply_to: None,
            correlation_id: None,
            traceparent: None,
            tracestate: None,
            owner: Some(self.replica),
            known_schema: 1,
        })
    }

    /// Inserts a new job and returns its claim.
    pub(crate) async fn in_hand(&self, key: &str) -> Claim {
        let job = self.job(key);
        ours(self.at_once(self.writer.intake(&job)).await)
    }

    /// Claims a due job.
    pub(crate) async fn claim(&self, job: JobId) -> Claim {
        match self.at_once(self.writer.claim(self.replica, job)).await {
            Ok(Claimed::Ours(claim)) => *claim,
            other => panic!("not claimed: {other:?}"),
        }
    }

    /// Commits the result of a claim's stage; the claim must not be fenced.
    pub(crate) async fn commit(&self, claim: &Claim, commit: &Commit<()>) -> Committed {
        self.at_once(Box::pin(self.writer.commit(run(claim), commit)))
            .await
            .expect("the claim is not fenced")
    }

    /// Runs all calls as one group, as [`Bench::at_once`] does.
    pub(crate) async fn together<V>(
        &self,
        calls: impl Iterator<Item = impl Future<Output = V>>,
    ) -> Vec<V> {
        self.at_once(join_all(calls)).await
    }

    /// Polls the calls before the writers start, so that all of them wait and form one group.
    pub(crate) async fn at_once<V>(&self, calls: impl Future<Output = V>) -> V {
        let end = CancellationToken::new();
        let calls = async {
            let answers = calls.await;
            end.cancel();
            answers
        };
        let (answers, ()) = tokio::join!(biased; calls, self.writer.write_groups(end.clone()));
        answers
    }
}

pub(crate) fn ours(intaken: Result<Intaken, StoreError>) -> Claim {
    match intaken {
        Ok(Intaken::Ours(claim, _)) => *claim,
        other => panic!("not claimed: {other:?}"),
    }
}

pub(crate) fn stage_done(stage: &'static str, next: Next) -> Commit<()> {
    let output = Some(RawValue::from_string("{\"done\":true}".to_owned()).expect("JSON"));
    let record = Record::Checkpoint(CheckpointRecord {
        stage,
        version: 1,
        output,
    });
    let (skipped, partial) = (Skipped::new(), None);
    Commit {
        record,
        effect: None,
        leftover: None,
        changes: None,
        children: Vec::new(),
        next,
        skipped,
        partial,
    }
}

/// Returns the commit of the first stage with a following stage.
pub(crate) fn first_done() -> Commit<()> {
    stage_done(
        "first",
        Next::Stage {
            stage: "second".to_owned(),
            keep: true,
        },
    )
}

pub(crate) fn run(claim: &Claim) -> Run<'_> {
    Run {
        fence: &claim.fence,
        job: &claim.job,
        took: Duration::from_millis(1),
    }
}

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
    let answers = bench
        .together(jobs.iter().map(|job| bench.writer.intake(job)))
        .await;
    let claims: Vec<Claim> = answers.into_iter().map(ours).collect();
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
    let claims: Vec<Claim> = bench
        .together(jobs.iter().map(|job| bench.writer.intake(job)))
        .await
        .into_iter()
        .map(ours)
        .collect();
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
    let nobody = JobId::fresh();
    let claimed = bench
        .together([bench.writer.claim(bench.replica, nobody)].into_iter())
        .await
        .pop()
        .expect("an answer");
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
    let claims: Vec<Claim> = bench
        .together(jobs.iter().map(|job| bench.writer.intake(job)))
        .await
        .into_iter()
        .map(ours)
        .collect();
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
    bench
        .database
        .rows(&format!(
            "UPDATE jobs SET state = 'ready', owner = NULL WHERE id = '{first}'"
        ))
        .await;
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
    bench
        .database
        .rows("UPDATE replicas SET alive_until = now() - interval '1 second'")
        .await;
    bench
        .database
        .rows(&format!(
            "UPDATE jobs SET state = 'ready', owner = NULL WHERE id = '{first}'"
        ))
        .await;
    let late = bench
        .together([bench.writer.claim(bench.replica, first)].into_iter())
        .await
        .pop()
        .expect("an answer");
    assert!(
        matches!(late, Ok(Claimed::Not(NotClaimed::LeaseLost))),
        "{late:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_prepared_on_an_empty_table_uses_the_index_when_the_table_is_full() {
    let bench = Bench::new().await;
    let prepared = bench.job("on an empty table");
    let claim = ours(
        bench
            .together([bench.writer.intake(&prepared)].into_iter())
            .await
            .pop()
            .expect("an answer"),
    );
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

/// Counts the commits that are blocked at the gate.
const IN_FLIGHT: &str = "
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()";

/// Inserts jobs, each in its own group, and returns their claims.
async fn made_one_by_one(bench: &Bench, number: usize) -> Vec<Claim> {
    let mut claims = Vec::with_capacity(number);
    for n in 0..number {
        let job = bench.job(&format!("{n}"));
        // A second statement in the group makes the writer time the commit alone.
        let nobody = bench.writer.claim(bench.replica, JobId::fresh());
        let (intaken, _) = bench.at_once(join(bench.writer.intake(&job), nobody)).await;
        claims.push(ours(intaken));
    }
    claims
}

/// Commits jobs one call after another while the gate blocks all commits, so that `in_flight`
/// groups are in flight and later calls wait. Then opens the gate; returns the number of
/// transactions and of checkpoints.
async fn written_in_a_jam(bench: &Bench, claims: &[Claim], in_flight: usize) -> String {
    gate::shut(&bench.database, "first").await;
    let commit = first_done();
    let end = CancellationToken::new();
    let jam = async {
        let mut calls = FuturesUnordered::new();
        for (before, claim) in claims.iter().enumerate() {
            calls.push(bench.writer.commit(run(claim), &commit));
            let standing = in_flight.min(before + 1).to_string();
            let all_stand = wait_for("commits at the gate", Duration::from_secs(10), async || {
                let seen = bench.database.one(IN_FLIGHT).await;
                if seen == standing {
                    Ok(())
                } else {
                    Err(format!("{seen} of {standing}"))
                }
            });
            tokio::select! {
                biased;
                answer = calls.next() => panic!("the gate is shut: {answer:?}"),
                () = all_stand => {}
            }
        }
        gate::open(&bench.database).await;
        let answers: Vec<_> = calls.collect().await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        end.cancel();
    };
    // Polled after each call, so that every group that may be in flight is in flight before the
    // next call.
    let writers = join_all((0..WRITERS).map(|_| bench.writer.write_groups(end.clone())));
    let ((), _) = tokio::join!(biased; jam, writers);
    bench
        .database
        .one("SELECT count(DISTINCT xmin::text) || ' of ' || count(*) FROM checkpoints")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_are_in_flight_while_commits_are_fast_and_later_calls_form_one_group() {
    let bench = Bench::new().await;
    // Makes commits of new connections fast on any disk.
    bench
        .database
        .rows(&format!(
            "ALTER DATABASE {} SET synchronous_commit = off",
            bench.database.name
        ))
        .await;
    // The fastest commit counts, so a busy machine would have to delay each of these.
    let claims = made_one_by_one(&bench, 64).await;
    assert_eq!(written_in_a_jam(&bench, &claims[..4], 2).await, "3 of 4");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_writer_has_a_group_in_flight_after_slow_commits() {
    let bench = Bench::new().await;
    // Slow enough for the maximum number of groups in flight.
    gate::slow(&bench.database, "jobs", Duration::from_millis(10)).await;
    let claims = made_one_by_one(&bench, WRITERS + 2).await;
    let written = written_in_a_jam(&bench, &claims, WRITERS).await;
    assert_eq!(written, format!("{} of {}", WRITERS + 1, WRITERS + 2));
}
