//! State changes of a job that depend on another row: a parent counts its follow-ups, a job waits
//! for a cause.

use std::time::Duration;

use dispatch_worker::engine::{Child, Commit, Next};
use dispatch_worker::fault::WaitOn;
use dispatch_worker::job::{JobId, JobState, WaitReason};
use dispatch_worker::store::{ActionResult, Actor, Committed, NewHold, Role, Target};
use dispatch_worker::tracker::{destination_cause, identity_cause};
use serde_json::json;

use crate::store::group_commit::{Bench, run, stage_done};
use crate::support::{WAITS_FOR_LOCK, wait_for};

const SOON: Duration = Duration::from_secs(10);

/// Creates a job that waits for a number of follow-ups. Returns the job and its follow-ups.
async fn family(bench: &Bench, follow_ups: usize) -> (JobId, Vec<JobId>) {
    let parent = bench.in_hand("parent").await;
    let child = |number| Child {
        pipeline: "p",
        target: format!("{number}"),
        payload: json!({}),
    };
    let commit = Commit {
        children: (0..follow_ups).map(child).collect(),
        ..stage_done("first", Next::Finish)
    };
    let done = bench.commit(&parent, &commit).await;
    assert_eq!(done.state, JobState::Waiting);
    (
        parent.job.id,
        done.wake.into_iter().map(|(child, _)| child).collect(),
    )
}

/// Claims a follow-up and finishes it, as a worker does.
async fn finish(bench: &Bench, child: JobId) -> Committed {
    let claim = bench.claim(child).await;
    bench
        .commit(&claim, &stage_done("first", Next::Finish))
        .await
}

/// Cancels a job, as an operator does.
async fn cancel(bench: &Bench, job: JobId) -> ActionResult {
    let actor = Actor {
        who: "olga".to_owned(),
        role: Role::Admin,
        reason: None,
        request: None,
    };
    bench
        .writer
        .store()
        .cancel(&Target::Id(job), &actor)
        .await
        .expect("Postgres answers")
}

/// Returns a parent's state, its number of open follow-ups, whether it has ended, and its number
/// of success events.
async fn stands(bench: &Bench, parent: JobId) -> Vec<String> {
    let sql = format!(
        "SELECT state, open_children, finished_at IS NOT NULL, (SELECT count(*) FROM announcements a
            WHERE a.job_id = jobs.id AND routing_key = 'job.succeeded') FROM jobs WHERE id = '{parent}'"
    );
    bench.database.rows(&sql).await.concat()
}

#[tokio::test]
async fn a_cancelled_follow_up_counts_as_done_once_and_the_parent_ends_with_the_others() {
    let bench = Bench::new().await;
    let (parent, children) = family(&bench, 3).await;
    let cancelled = ActionResult::Done {
        job: children[0],
        before: JobState::Ready,
        now: JobState::Cancelled,
    };
    assert_eq!(cancel(&bench, children[0]).await, cancelled);
    assert_eq!(stands(&bench, parent).await, ["waiting", "2", "f", "0"]);
    assert_eq!(
        cancel(&bench, children[0]).await,
        ActionResult::Already(children[0], JobState::Cancelled)
    );
    assert_eq!(finish(&bench, children[1]).await.parent_done, None);
    assert_eq!(stands(&bench, parent).await, ["waiting", "1", "f", "0"]);
    assert_eq!(finish(&bench, children[2]).await.parent_done, Some(parent));
    assert_eq!(stands(&bench, parent).await, ["succeeded", "0", "t", "1"]);
}

#[tokio::test]
async fn a_parent_succeeds_when_its_last_open_follow_up_is_cancelled() {
    let bench = Bench::new().await;
    let (parent, children) = family(&bench, 2).await;
    assert_eq!(finish(&bench, children[0]).await.parent_done, None);
    // The worker that runs it is fenced and does not count it again.
    let claim = bench.claim(children[1]).await;
    let cancelled = ActionResult::Done {
        job: children[1],
        before: JobState::Running,
        now: JobState::Cancelled,
    };
    assert_eq!(cancel(&bench, children[1]).await, cancelled);
    let late = stage_done("first", Next::Finish);
    let fenced = bench
        .at_once(Box::pin(bench.writer.commit(run(&claim), &late)))
        .await;
    assert!(fenced.is_err(), "{fenced:?}");
    assert_eq!(stands(&bench, parent).await, ["succeeded", "0", "t", "1"]);
}

const SCOPE: &str = "acme|webhook|hooks.example";

/// An identity at version 1 and a disabled destination; both have the id 1.
const CAUSES: &str = "
    WITH acme AS (INSERT INTO organizations (slug, name) VALUES ('acme', 'Acme') RETURNING id),
    bot AS (INSERT INTO identities (organization_id, name, access_token, token_expires_at)
        SELECT id, 'bot', 'sealed', now() FROM acme)
    INSERT INTO destinations (organization_id, name, kind, config, disabled) SELECT id, 'team', 'webhook', '{}', true FROM acme";

/// Returns causes to wait for, each with the statement that removes it.
fn causes() -> [(WaitOn, &'static str); 3] {
    let on = |reason, key, observed| WaitOn {
        reason,
        key,
        observed,
    };
    [
        (
            on(WaitReason::Hold, format!("hold:{SCOPE}"), 0),
            "UPDATE controls SET released_at = now()",
        ),
        (
            on(WaitReason::Reauthentication, identity_cause(1), 1),
            "UPDATE identities SET version = version + 1",
        ),
        (
            on(WaitReason::InstallationDisabled, destination_cause(1), 0),
            "UPDATE destinations SET disabled = false",
        ),
    ]
}

async fn with_causes() -> Bench {
    let bench = Bench::new().await;
    let length = Duration::from_secs(600);
    let hold = NewHold {
        scope: SCOPE,
        is_circuit: false,
        reason: "it has asked for patience",
        who: "replica 1",
        length,
    };
    bench
        .writer
        .store()
        .place_hold(&hold)
        .await
        .expect("Postgres answers");
    bench.database.rows(CAUSES).await;
    bench
}

fn waits(on: &WaitOn) -> Commit<()> {
    stage_done(
        "first",
        Next::Wait {
            on: on.clone(),
            resume_at: "second".to_owned(),
        },
    )
}

const ROWS: &str =
    "SELECT state, stage, coalesce(wait_key, '-'), woken_at IS NOT NULL, owner IS NULL FROM jobs";

#[tokio::test]
async fn a_job_waits_for_a_cause_that_is_present() {
    for (on, _) in causes() {
        let bench = with_causes().await;
        let claim = bench.in_hand("one").await;
        let done = bench.commit(&claim, &waits(&on)).await;
        assert_eq!(
            (done.state, done.wake),
            (JobState::Waiting, Vec::new()),
            "{on:?}"
        );
        assert_eq!(
            bench.database.rows(ROWS).await.concat(),
            ["waiting", "second", &on.key, "f", "t"]
        );
    }
}

#[tokio::test]
async fn a_job_whose_cause_is_removed_during_its_commit_is_ready_and_woken() {
    for (on, away) in causes() {
        let bench = with_causes().await;
        let claim = bench.in_hand("one").await;
        let mut client = bench.database.pool.get().await.expect("a connection");
        let tx = client.transaction().await.expect("Postgres answers");
        assert_eq!(
            tx.execute(away, &[]).await.expect("the statement succeeds"),
            1
        );
        let committed = wait_for("the commit to wait for the cause's row", SOON, async || {
            if bench.database.one(WAITS_FOR_LOCK).await == "1" {
                Ok(())
            } else {
                Err("no session waits for a lock")
            }
        });
        let gone = async {
            (
                committed.await,
                tx.commit().await.expect("Postgres answers"),
            )
        };
        let commit = waits(&on);
        let (done, _) = tokio::join!(bench.commit(&claim, &commit), gone);
        let wake = vec![(claim.job.id, "p".to_owned())];
        assert_eq!((done.state, done.wake), (JobState::Ready, wake), "{on:?}");
        assert_eq!(
            bench.database.rows(ROWS).await.concat(),
            ["ready", "second", "-", "t", "t"]
        );
    }
}
