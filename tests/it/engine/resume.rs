//! Resume: the real worker is aborted at every crash point of every stage of all three pipelines.
//! Another worker continues where it stopped, and every guarantee is checked exactly.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use dispatch_worker::engine::StageInfo;
use dispatch_worker::job::{EffectClass, JobState};
use dispatch_worker::pipelines::registry;
use futures_util::{FutureExt, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use crate::support::{Checks, TestWorld, WorkerOptions, acme};

const POINTS: [&str; 5] = [
    "after_claim",
    "after_intent",
    "after_call",
    "after_commit",
    "after_publish",
];
/// Cases of one test that run at the same time.
const AT_A_TIME: usize = 3;
/// The limit for each wait of a case; the machine may be busy with the other cases.
const STEP: Duration = Duration::from_secs(60);
/// The timeout of a call. An at-least-once call in flight is not repeated before its deadline has
/// passed: a short timeout keeps a case short, but a machine that is busy with other cases needs
/// some seconds.
const CALL_SECONDS: u64 = 5;
const KEY: &str = "resume";
const SIGABRT: i32 = 6;
const EVERYBODY: [&str; 3] = [acme::DISCORD, acme::KEYED, acme::BLIND];

/// The point at which the first worker aborts, and the contents of its job.
#[derive(Debug, Clone, Copy)]
struct Case {
    stage: &'static str,
    point: &'static str,
    notify: &'static [&'static str],
    /// Without an account, the job waits for a `configure`.
    has_account: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{} notifying {}",
            self.stage,
            self.point,
            self.notify.join(", ")
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatch_job_aborted_at_any_point_of_any_stage_continues_where_it_stopped() {
    all_resume(cases("dispatch")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_assignee_sync_aborted_at_any_point_of_any_stage_writes_the_work_item_once() {
    all_resume(cases("assignee_sync")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_aborted_at_any_point_of_any_stage_is_delivered_as_the_class_of_its_destination_allows()
 {
    all_resume(cases("messaging")).await;
}

/// Returns a case for every stage of a pipeline and every point; for a stage that sends messages,
/// one for each destination.
fn cases(pipeline: &str) -> Vec<Case> {
    const EACH: [&[&str]; 3] = [&[acme::DISCORD], &[acme::KEYED], &[acme::BLIND]];
    let registry = registry();
    let stages = registry
        .get(pipeline)
        .expect("a pipeline of the registry")
        .stages();
    let points = stages.flat_map(|stage| POINTS.map(|point| (*stage, point)));
    let recipients = |stage: &StageInfo| {
        if stage.effect == Some(EffectClass::AtLeastOnce) {
            EACH.to_vec()
        } else {
            vec![&EVERYBODY[..]]
        }
    };
    let of_point = |(stage, point): (StageInfo, &'static str)| {
        let case = move |notify| Case {
            stage: stage.name,
            point,
            notify,
            has_account: !stage.off_path,
        };
        recipients(&stage).into_iter().map(case)
    };
    points.flat_map(of_point).collect()
}

async fn all_resume(cases: Vec<Case>) {
    let count = cases.len();
    let tried = stream::iter(cases).map(|case| async move {
        // The other cases run regardless, so that one run reports all failures.
        let outcome = AssertUnwindSafe(resume(case)).catch_unwind().await;
        if outcome.is_err() {
            Some(case.to_string())
        } else {
            None
        }
    });
    let failed: Vec<String> = tried
        .buffer_unordered(AT_A_TIME)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(count >= POINTS.len(), "every pipeline has a stage");
    assert!(
        failed.is_empty(),
        "{} of {count} cases failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

async fn resume(case: Case) {
    let world = TestWorld::acme().await;
    let options = WorkerOptions {
        call_seconds: Some(CALL_SECONDS),
        ..WorkerOptions::default()
    };
    let crash_at = Some(format!("{}:{}", case.stage, case.point));
    let mut first = world.worker(&WorkerOptions {
        crash_at,
        ..options.clone()
    });
    publish(&world, case).await;
    let status = first.wait_exit(STEP).await;
    assert_eq!(status.signal(), Some(SIGABRT), "{case}: {status}");
    let left = owned(&world).await;
    let is_committed = matches!(case.point, "after_commit" | "after_publish");
    assert!(
        is_committed || left.iter().any(|job| job.stage == case.stage),
        "{case}: no replica owns the stage's job"
    );

    let _second = world.worker(&options);
    if !case.has_account {
        let waiting = world.wait_job_state(KEY, JobState::Waiting, STEP).await;
        assert_eq!(
            waiting.wait_reason.as_deref(),
            Some("configuration"),
            "{case}"
        );
        world
            .publish_configure(waiting.id, &acme::account_id())
            .await;
    }
    world.wait_job_state(KEY, JobState::Succeeded, STEP).await;
    Checks::default().hold(&world).await;
    took_over(&world, &left).await;
    finished(&world, case).await;
}

async fn publish(world: &TestWorld, case: Case) {
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    let mut job = acme::job(KEY, &event);
    job["notify"] = json!(case.notify);
    job["search"] = json!({"text": "login"});
    if !case.has_account {
        job["account"] = json!(null);
    }
    world.publish_job(&job).await;
}

/// A job that still had an owner after its worker had aborted.
#[derive(Debug, Deserialize)]
struct Owned {
    id: String,
    stage: String,
    epoch: i64,
    owner: i64,
}

async fn owned(world: &TestWorld) -> Vec<Owned> {
    world
        .database
        .records("SELECT id, stage, epoch, owner FROM jobs WHERE owner IS NOT NULL")
        .await
}

/// Asserts that the first worker's jobs were freed and claimed again, each with a greater epoch.
async fn took_over(world: &TestWorld, left: &[Owned]) {
    for Owned {
        id,
        stage,
        epoch,
        owner,
    } in left
    {
        let now: i64 = number(world, &format!("SELECT epoch FROM jobs WHERE id = '{id}'")).await;
        assert!(
            now >= epoch + 2,
            "{stage} was owned at epoch {epoch} and is at {now}"
        );
        let buried = format!("SELECT ended_at IS NOT NULL FROM replicas WHERE id = {owner}");
        assert_eq!(
            world.database.one(&buried).await,
            "t",
            "the dead replica has an end"
        );
    }
}

/// Asserts that every stage of every job has one checkpoint and that the simulator saw the
/// expected effects.
async fn finished(world: &TestWorld, case: Case) {
    let children = 1 + case.notify.len();
    let asked = if case.has_account { 0 } else { 2 };
    let checkpoints: usize = number(world, "SELECT count(*) FROM checkpoints").await;
    assert_eq!(checkpoints, 10 + 2 * children + asked, "{case}");
    let jobs: usize = number(world, "SELECT count(*) FROM jobs WHERE state = 'succeeded'").await;
    assert_eq!(jobs, 1 + children, "{case}");
    let effects: usize = number(
        world,
        "SELECT count(*) FROM effects WHERE state = 'confirmed'",
    )
    .await;
    assert_eq!(effects, children, "{case}");
    let unknowns: usize = number(world, "SELECT coalesce(sum(unknowns), 0) FROM effects").await;
    let witness = world.witness();
    let happened = witness.iter().filter(|entry| entry.effect).count();
    assert!(
        (children..=children + unknowns).contains(&happened),
        "{case}: {happened} effects, {unknowns} unknown"
    );
    let assignees = world
        .simulator()
        .await
        .client
        .assignees()
        .await
        .expect("the simulator answers");
    for item in [acme::WORK_ITEM, acme::OTHER_ITEM] {
        assert_eq!(
            assignees[&format!("{}:{item}", acme::ACCOUNT)].as_deref(),
            Some(acme::ANN),
            "{case}"
        );
    }
}

async fn number<N: std::str::FromStr>(world: &TestWorld, sql: &str) -> N {
    let text = world.database.one(sql).await;
    text.parse()
        .unwrap_or_else(|_| panic!("{sql}: {text:?} is not such a number"))
}
