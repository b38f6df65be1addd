//! Assignment truth (G6): people change work items while workers run. The service-hook events
//! arrive shuffled, repeated or not at all, except that the event of each item's last revision
//! arrives. In the end every group and all its work items have the assignee that was set by the
//! last person to change one of these work items, and no further changes follow.
//!
//! `DISPATCH_TEST_CASES` sets the number of cases, `DISPATCH_TEST_SEED` repeats one case.

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

/// The default number of cases.
const CASES: u32 = 2;
/// The number of revisions of each item that people make.
const REVISIONS: u32 = 20;
/// The number of waves of revisions; the workers handle the events of one wave while the next one
/// is made.
const WAVES: u32 = 4;
/// The time limit until no work is left.
const REST: Duration = Duration::from_secs(180);
/// Expected failed attempts: lost races for a work item, and lost answers.
const TRIED_AGAIN: &[(&str, &str)] = &[
    ("patch_work_item", "azure_devops.revision_moved"),
    ("patch_work_item", "azure_devops.connection_lost"),
];

#[test]
fn assignees_converge_although_events_are_shuffled_repeated_and_lost() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let case = |seed: u64| {
        eprintln!("DISPATCH_TEST_SEED={seed}");
        runtime.block_on(Box::pin(case(seed)));
    };
    if let Some(seed) = config::test_seed() {
        return case(seed);
    }
    let settings = ProptestConfig {
        cases: config::test_cases().unwrap_or(CASES),
        // A smaller seed is not a smaller case, so shrinking is useless.
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
    let options = WorkerOptions {
        concurrency: Some(8),
        ..WorkerOptions::default()
    };
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
    Checks {
        attempts: TRIED_AGAIN,
    }
    .hold(&world)
    .await;
    scene::faults_have_happened(&world).await;
}

/// Waits until each of the `published` jobs has been accepted, every job has succeeded, and no
/// queue holds a message.
async fn rest(world: &TestWorld, published: usize) {
    const OPEN: &str = "
        SELECT pipeline, state, coalesce(wait_reason, error_code, ''), count(*) FROM jobs WHERE state <> 'succeeded' GROUP BY 1, 2, 3";
    const TAKEN_IN: &str = "SELECT count(*) FROM jobs WHERE pipeline = 'dispatch'";
    wait_for(
        "every job to be accepted and to succeed",
        REST,
        async || {
            // Counted first, or a job that is accepted after the query of open jobs would be
            // missed.
            let taken_in = world.database.one(TAKEN_IN).await;
            let open = world.database.rows(OPEN).await;
            let is_over = open.is_empty() && taken_in == published.to_string();
            if is_over {
                Ok(())
            } else {
                Err(format!(
                    "{taken_in} of {published} jobs accepted, open: {open:?}"
                ))
            }
        },
    )
    .await;
    world.wait_quiet(REST).await;
}
