//! The group writer with writes of all kinds in one group.

use std::sync::Arc;

use dispatch_worker::engine::{Commit, Next, Skipped};
use dispatch_worker::job::{JobId, JobState};
use dispatch_worker::store::{Claim, Claimed, CommitError, Committed, Intaken, NewJob, StoreError};
use futures_util::future::{join_all, join3};

use crate::store::group_commit::{Bench, first_done, ours, run, stage_done};

/// The number of writes of each kind.
const ROWS: usize = 4;

/// Counts the transactions that wrote the rows, and the rows.
const WRITTEN: &str = "
    SELECT count(DISTINCT tx) || ' of ' || count(*)
    FROM (SELECT xmin::text AS tx FROM jobs UNION ALL SELECT xmin::text FROM checkpoints) AS written";

/// The writes of a group.
struct Mixed {
    new: Vec<Arc<NewJob>>,
    /// Jobs without an owner, to be claimed.
    ready: Vec<JobId>,
    /// Claims whose first stage is done; it is the last stage of every second job.
    running: Vec<Claim>,
}

/// The results of the writes.
struct Answers {
    intaken: Vec<Result<Intaken, StoreError>>,
    claimed: Vec<Result<Claimed, StoreError>>,
    committed: Vec<Result<Committed, CommitError>>,
}

impl Mixed {
    async fn on(bench: &Bench) -> Self {
        let jobs = |kind: &str| {
            (0..ROWS)
                .map(|n| bench.job(&format!("{kind}-{n}")))
                .collect::<Vec<_>>()
        };
        let unowned = |job: Arc<NewJob>| {
            Arc::new(NewJob {
                owner: None,
                ..Arc::into_inner(job).expect("the only one")
            })
        };
        let (ready, running): (Vec<_>, _) = (
            jobs("ready").into_iter().map(unowned).collect(),
            jobs("running"),
        );
        for answer in bench
            .together(ready.iter().map(|job| bench.writer.intake(job)))
            .await
        {
            assert!(matches!(answer, Ok(Intaken::Accepted(_))), "{answer:?}");
        }
        Self {
            new: jobs("new"),
            ready: ready.iter().map(|job| job.id).collect(),
            running: bench.all_in_hand(&running).await,
        }
    }

    async fn written(&self, bench: &Bench) -> Answers {
        let commits = [first_done(), stage_done("first", Next::Finish)];
        let calls = join3(
            join_all(self.new.iter().map(|job| bench.writer.intake(job))),
            join_all(
                self.ready
                    .iter()
                    .map(|job| bench.writer.claim(bench.replica, *job)),
            ),
            join_all(
                self.running
                    .iter()
                    .zip(commits.iter().cycle())
                    .map(|(claim, end)| bench.writer.commit(run(claim), end)),
            ),
        );
        let (intaken, claimed, committed) = bench.at_once(calls).await;
        Answers {
            intaken,
            claimed,
            committed,
        }
    }

    /// Asserts that each write has succeeded with its own result.
    fn succeed(&self, answers: Answers) {
        let intaken: Vec<JobId> = answers
            .intaken
            .into_iter()
            .map(|answer| ours(answer).job.id)
            .collect();
        assert_eq!(
            intaken,
            self.new.iter().map(|job| job.id).collect::<Vec<_>>()
        );
        let claimed = answers.claimed.into_iter().map(|answer| match answer {
            Ok(Claimed::Ours(claim)) => claim.job.id,
            other => panic!("not claimed: {other:?}"),
        });
        assert_eq!(claimed.collect::<Vec<_>>(), self.ready);
        let committed = answers.committed.into_iter().map(|answer| {
            let done = answer.expect("the claim is not fenced");
            (done.state, done.announcements.len())
        });
        let right =
            [(JobState::Running, 0), (JobState::Succeeded, 1)].repeat(self.running.len() / 2);
        assert_eq!(committed.collect::<Vec<_>>(), right);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_new_jobs_claims_and_commits_are_written_in_one_transaction() {
    let bench = Bench::new().await;
    let mixed = Mixed::on(&bench).await;
    let answers = mixed.written(&bench).await;
    mixed.succeed(answers);
    // A row for each job, and one more for each commit.
    assert_eq!(
        bench.database.one(WRITTEN).await,
        format!("1 of {}", 4 * ROWS)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_job_that_postgres_refuses_fails_no_claim_and_no_commit() {
    let bench = Bench::new().await;
    let mut mixed = Mixed::on(&bench).await;
    // Its source is too long, and it is the first to be repeated alone.
    let bad = NewJob {
        source: "a".repeat(65),
        ..Arc::into_inner(bench.job("bad")).expect("the only one")
    };
    mixed.new.push(Arc::new(bad));
    let mut answers = mixed.written(&bench).await;
    mixed.new.pop();
    let refused = answers
        .intaken
        .pop()
        .expect("an answer")
        .expect_err("its source is too long");
    assert!(!refused.is_infrastructure(), "{refused:?}");
    mixed.succeed(answers);
    // Row by row: fewer transactions would mean that the bad row was not in the group.
    assert_eq!(
        bench.database.one(WRITTEN).await,
        format!("{} of {}", 3 * ROWS, 4 * ROWS)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_postgres_refuses_fails_no_new_job_and_no_claim() {
    let bench = Bench::new().await;
    // Its checkpoint exists already. The job is older than the others, so its commit is the first
    // to be repeated alone.
    let job = bench.job("bad");
    let bad = ours(bench.at_once(bench.writer.intake(&job)).await);
    let commit = first_done();
    bench
        .at_once(Box::pin(bench.writer.commit(run(&bad), &commit)))
        .await
        .expect("the claim is not fenced");
    let mut mixed = Mixed::on(&bench).await;
    mixed.running.push(bad);
    let mut answers = mixed.written(&bench).await;
    mixed.running.pop();
    let refused = answers
        .committed
        .pop()
        .expect("an answer")
        .expect_err("a stage has one checkpoint");
    assert!(
        matches!(&refused, CommitError::Store(error) if !error.is_infrastructure()),
        "{refused:?}"
    );
    mixed.succeed(answers);
    // Row by row, in addition to the bad job's first commit, which wrote the job and its
    // checkpoint.
    assert_eq!(
        bench.database.one(WRITTEN).await,
        format!("{} of {}", 3 * ROWS + 1, 4 * ROWS + 2)
    );
}

fn left(kind: &'static str, reason: &str) -> Skipped {
    Skipped::from([(kind, [(reason.to_owned(), 1)].into())])
}

/// Returns the commit of a stage that has skipped items; `keep` says whether the claim is kept.
fn skipping(stage: &'static str, keep: bool, skipped: Skipped) -> Commit<()> {
    let next = Next::Stage {
        stage: "next".to_owned(),
        keep,
    };
    Commit {
        skipped,
        ..stage_done(stage, next)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_items_are_stored_by_kind_whether_their_commit_is_grouped_or_alone() {
    let bench = Bench::new().await;
    let jobs = [bench.job("one"), bench.job("two")];
    let claims = bench.all_in_hand(&jobs).await;
    // Both in one group: the skipped items of one job do not appear in the other.
    let commits = [
        skipping("first", true, left("events", "duplicate")),
        first_done(),
    ];
    let done = bench
        .together(
            claims
                .iter()
                .zip(&commits)
                .map(|(claim, commit)| bench.writer.commit(run(claim), commit)),
        )
        .await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    let stored = async || {
        bench
            .database
            .rows("SELECT skipped FROM jobs ORDER BY dedupe_key")
            .await
            .concat()
    };
    assert_eq!(stored().await, [r#"{"events":{"duplicate":1}}"#, "-"]);
    let more = [
        (
            skipping("second", true, left("assignments", "unresolved")),
            [r#"{"duplicate":1}"#, r#"{"unresolved":1}"#],
        ),
        (
            skipping("third", true, Skipped::new()),
            [r#"{"duplicate":1}"#, r#"{"unresolved":1}"#],
        ),
        // This commit releases the job, so it is written alone.
        (
            skipping("fourth", false, left("events", "malformed")),
            [r#"{"malformed":1}"#, r#"{"unresolved":1}"#],
        ),
    ];
    for (commit, expected) in more {
        bench
            .at_once(Box::pin(bench.writer.commit(run(&claims[0]), &commit)))
            .await
            .expect("the claim is not fenced");
        let kinds = "SELECT skipped::jsonb -> 'events', skipped::jsonb -> 'assignments' FROM jobs WHERE dedupe_key = 'one'";
        let kinds: Vec<String> = bench
            .database
            .rows(kinds)
            .await
            .concat()
            .iter()
            .map(|kind| kind.replace(' ', ""))
            .collect();
        assert_eq!(kinds, expected);
    }
    let alone = skipping("second", false, left("work_items", "gone"));
    bench
        .at_once(Box::pin(bench.writer.commit(run(&claims[1]), &alone)))
        .await
        .expect("the claim is not fenced");
    assert_eq!(stored().await[1], r#"{"work_items":{"gone":1}}"#);
}
