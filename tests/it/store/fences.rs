//! The fence: a write on behalf of a claim is refused when the job's row shows another epoch or
//! another owner.

use std::time::Duration;

use dispatch_worker::engine::{AttemptOutcome, AttemptRecord, Commit, Failure, Next, Record};
use dispatch_worker::fault::WaitOn;
use dispatch_worker::job::WaitReason;
use dispatch_worker::store::{Claim, CommitError, Landed, SoFar};

use crate::store::group_commit::{Bench, first_done, run, stage_done};

/// Statements of which each alone fences a claim.
const MOVED_ON: [&str; 2] = [
    "UPDATE jobs SET epoch = epoch + 1",
    "UPDATE jobs SET owner = owner + 1",
];

/// Returns a claim whose job has moved on without it.
async fn fenced(moved_on: &str) -> (Bench, Claim) {
    let bench = Bench::new().await;
    let claim = bench.in_hand("one").await;
    bench.database.rows(moved_on).await;
    (bench, claim)
}

/// Returns the job's row and its number of checkpoints.
async fn stored(bench: &Bench) -> Vec<String> {
    bench
        .database
        .rows("SELECT jobs::text, (SELECT count(*) FROM checkpoints) FROM jobs")
        .await
        .concat()
}

async fn refuses(commit: Commit<()>) {
    for moved_on in MOVED_ON {
        let (bench, claim) = fenced(moved_on).await;
        let before = stored(&bench).await;
        let done = bench
            .at_once(Box::pin(bench.writer.commit(run(&claim), &commit)))
            .await;
        assert!(
            matches!(done, Err(CommitError::Fenced)),
            "{moved_on}: {done:?}"
        );
        assert_eq!(stored(&bench).await, before, "{moved_on}");
    }
}

#[tokio::test]
async fn a_grouped_commit_is_refused_after_the_job_has_moved_on() {
    refuses(first_done()).await;
}

#[tokio::test]
async fn a_commit_in_a_transaction_of_its_own_is_refused_after_the_job_has_moved_on() {
    refuses(stage_done(
        "first",
        Next::Stage {
            stage: "second".to_owned(),
            keep: false,
        },
    ))
    .await;
}

#[tokio::test]
async fn a_claim_postpones_and_frees_nothing_after_the_job_has_moved_on() {
    for moved_on in MOVED_ON {
        let (bench, claim) = fenced(moved_on).await;
        let (store, before) = (bench.writer.store(), stored(&bench).await);
        assert!(
            !store
                .postpone(&claim.fence, Duration::ZERO, SoFar::Only(None))
                .await
                .unwrap(),
            "{moved_on}"
        );
        assert!(
            !store
                .free_orphan(bench.replica, claim.job.id, claim.job.epoch)
                .await
                .unwrap(),
            "{moved_on}"
        );
        let landed = store.landed(run(&claim), &first_done()).await.unwrap();
        assert_eq!(landed, Landed::Fenced, "{moved_on}");
        assert_eq!(stored(&bench).await, before, "{moved_on}");
    }
}

#[tokio::test]
async fn a_commit_of_an_earlier_claim_is_not_mistaken_for_one_of_a_later_claim() {
    let bench = Bench::new().await;
    let first = bench.in_hand("one").await;
    let failure = Failure {
        code: "c".to_owned(),
        message: "m".to_owned(),
        hint: "h".to_owned(),
        fingerprint: "f".to_owned(),
    };
    let attempt = AttemptRecord {
        stage: "first".to_owned(),
        outcome: AttemptOutcome::Waited,
        failure,
    };
    let on = WaitOn {
        reason: WaitReason::Version,
        key: "schema:2".to_owned(),
        observed: 0,
    };
    let next = Next::Wait {
        on,
        resume_at: "first".to_owned(),
    };
    let waits = Commit {
        record: Record::Attempt(attempt),
        ..stage_done("first", next)
    };
    bench.commit(&first, &waits).await;
    assert_eq!(
        bench
            .writer
            .store()
            .begin_release("schema:2")
            .await
            .unwrap(),
        1
    );
    // A wait uses no attempt, so the record of the next claim's commit differs only in its epoch.
    let second = bench.claim(first.job.id).await;
    assert_eq!(second.job.attempt, first.job.attempt);
    let landed = async || {
        bench
            .writer
            .store()
            .landed(run(&second), &waits)
            .await
            .unwrap()
    };
    assert_eq!(landed().await, Landed::No);
    bench.commit(&second, &waits).await;
    assert_eq!(landed().await, Landed::Yes);
}
