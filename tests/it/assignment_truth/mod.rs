//! Assignment truth (G6): people change work items while workers run; the service-hook events arrive shuffled, repeated and in
//! part never, but for one after each item's last revision. In the end every group's assignee is the one that the last person
//! to touch one of its work items left there, all of them have it, and nothing goes on moving.
//!
//! `DISPATCH_TEST_CASES` runs more cases than the default, `DISPATCH_TEST_SEED` one case again.

mod evidence;
mod people;
mod scene;

use std::time::Duration;

use dispatch_worker::config;
use proptest::prelude::{ProptestConfig, any};
use proptest::test_runner::TestRunner;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::support::{Checks, TestWorld, WorkerOptions, wait_for};
use evidence::Evidence;
use people::People;

/// Cases where nobody asks for more.
const CASES: u32 = 2;
/// Every item has this many revisions made by people...
const REVISIONS: u32 = 20;
/// ...in this many waves; the workers are at the events of one while the next one is made.
const WAVES: u32 = 4;
/// Until everything has come to rest.
const REST: Duration = Duration::from_secs(180);
/// Lost races for a work item, and lost answers.
const TRIED_AGAIN: &[(&str, &str)] =
    &[("patch_work_item", "azure_devops.revision_moved"), ("patch_work_item", "azure_devops.connection_lost")];

#[test]
fn assignees_end_equal_to_the_tracker_s_whatever_becomes_of_the_events() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let case = |seed: u64| {
        eprintln!("DISPATCH_TEST_SEED={seed}");
        runtime.block_on(Box::pin(case(seed)));
    };
    if let Some(seed) = config::test_seed() {
        return case(seed);
    }
    let settings = ProptestConfig {
        cases: config::test_cases().unwrap_or(CASES),
        // A seed is no smaller for being a smaller number.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let result = TestRunner::new(settings).run(&any::<u64>(), |seed| {
        case(seed);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

async fn case(seed: u64) {
    let world = TestWorld::new().await;
    scene::set(&world).await;
    evidence::watch(&world).await;
    let options = WorkerOptions { concurrency: Some(8), ..WorkerOptions::default() };
    let workers = [world.worker(&options), world.worker(&options)];
    for worker in &workers {
        worker.ready().await;
    }
    let mut people = People::new(&world, StdRng::seed_from_u64(seed)).await;
    for wave in 1..=WAVES {
        people.change_everything(REVISIONS / WAVES).await;
        people.publish(wave == WAVES).await;
    }
    rest(&world, people.jobs).await;
    let evidence = Evidence::gather(&world).await;
    evidence.check(&people);
    people.publish_what_the_worker_did().await;
    rest(&world, people.jobs).await;
    let after = Evidence::gather(&world).await;
    after.check(&people);
    evidence.check_nothing_moved(&after);
    Checks { attempts: TRIED_AGAIN }.hold(&world).await;
    scene::faults_have_happened(&world).await;
}

/// Waits until each of the `published` jobs has been taken in, every job has succeeded, and no queue holds a message.
async fn rest(world: &TestWorld, published: usize) {
    const OPEN: &str = "
        SELECT pipeline, state, coalesce(wait_reason, error_code, ''), count(*) FROM jobs WHERE state <> 'succeeded' GROUP BY 1, 2, 3";
    const TAKEN_IN: &str = "SELECT count(*) FROM jobs WHERE pipeline = 'dispatch'";
    wait_for("every job to be taken in and to succeed", REST, async || {
        // Counted first: a job that is taken in after the look at the open ones would be missed.
        let taken_in = world.database.one(TAKEN_IN).await;
        let open = world.database.rows(OPEN).await;
        let is_over = open.is_empty() && taken_in == published.to_string();
        if is_over { Ok(()) } else { Err(format!("{taken_in} of {published} jobs taken in, not ended: {open:?}")) }
    })
    .await;
    world.wait_quiet(REST).await;
}
