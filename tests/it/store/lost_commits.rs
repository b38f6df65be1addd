//! Commits with a lost answer: the worker determines their outcome, and nothing is done twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use dispatch_worker::pipelines::MESSAGING;

use crate::engine::wake_ups::later;
use crate::support::{
    Checks, Proxy, TestWorld, WorkerOptions, WorkerProcess, acme, gate, wait_for,
};

const SOON: Duration = Duration::from_secs(30);
/// A time limit that is shorter than the age at which a stale wake-up is published again if its
/// queue is empty.
const STAMPS_WITHIN: Duration = Duration::from_secs(3);
/// A stage whose commit is part of a group, and one that changes the tracker, whose commit is
/// written alone.
const STAGES: [&str; 2] = ["retrieve_user", "update_assignments"];

/// Counts the sessions that wait for a commit to be decided.
const ASKS: &str = "
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%AS ours FROM jobs%'";

/// A job whose commit of a stage is blocked at the gate.
struct Scene {
    world: TestWorld,
    proxy: Proxy,
    first: gate::Blocked,
    _worker: WorkerProcess,
}

impl Scene {
    async fn new(stage: &str) -> Self {
        let world = TestWorld::acme().await;
        let (proxy, worker) = worker_by_way_of_a_proxy(&world, None).await;
        Self::at(world, proxy, worker, stage).await
    }

    async fn at(world: TestWorld, proxy: Proxy, worker: WorkerProcess, stage: &str) -> Self {
        gate::shut(&world.database, stage).await;
        publish_one(&world).await;
        let first = gate::at_it(&world.database, None).await;
        Self {
            world,
            proxy,
            first,
            _worker: worker,
        }
    }

    /// Cuts the connection before the answer, and waits until the worker queries the outcome of
    /// the commit.
    async fn cut_and_asked_for(&self) {
        self.proxy.cut(self.first.port);
        wait_for("the worker to query the outcome", SOON, async || match self
            .world
            .database
            .one(ASKS)
            .await
            .as_str()
        {
            "1" => Ok(()),
            others => Err(format!("{others} sessions query it")),
        })
        .await;
    }

    /// Opens the gate and asserts that the job succeeds and everything is done once.
    async fn goes_on(&self) {
        gate::open(&self.world.database).await;
        is_done_once(&self.world).await;
    }
}

async fn worker_by_way_of_a_proxy(
    world: &TestWorld,
    concurrency: Option<u16>,
) -> (Proxy, WorkerProcess) {
    let proxy = Proxy::to(&world.database.worker_url).await;
    let environment = BTreeMap::from([("DISPATCH_DATABASE_URL".to_owned(), proxy.url())]);
    let worker = world.worker(&WorkerOptions {
        environment,
        concurrency,
        call_seconds: Some(30),
        ..WorkerOptions::default()
    });
    (proxy, worker)
}

async fn publish_one(world: &TestWorld) {
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
}

/// Asserts that the same worker completes the job in the same epoch.
async fn is_done_once(world: &TestWorld) {
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    world.wait_quiet(SOON).await;
    let epochs = "SELECT max(epoch), max(crash_count) FROM jobs WHERE pipeline = 'dispatch'";
    assert_eq!(
        world.database.rows(epochs).await,
        [["1", "0"]],
        "the job was not taken over"
    );
    Checks::default().hold(world).await;
}

#[tokio::test]
async fn a_commit_that_completes_late_is_found_and_not_repeated() {
    for stage in STAGES {
        let scene = Scene::new(stage).await;
        scene.cut_and_asked_for().await;
        scene.goes_on().await;
    }
}

#[tokio::test]
async fn follow_ups_of_a_late_commit_are_woken_although_their_queue_is_not_empty() {
    let world = TestWorld::acme().await;
    let (proxy, worker) = worker_by_way_of_a_proxy(&world, Some(1)).await;
    // With one permit and two slow messages, the messages behind them stay in the queue.
    let slow = FaultRule::new(FaultKind::Slow)
        .millis(12_000)
        .path_contains("/webhook/")
        .times(2);
    let id = world
        .simulator()
        .await
        .client
        .fault(&slow)
        .await
        .expect("the simulator accepts the fault");
    for (key, to) in [("before-1", acme::ANN), ("before-2", acme::BOB)] {
        let event = world.assign(acme::OTHER_ITEM, Some(to)).await;
        world.publish_job(&acme::job(key, &event)).await;
        world.wait_job_state(key, JobState::Waiting, SOON).await;
    }
    world.wait_fault_met(id).await;
    let scene = Scene::at(world, proxy, worker, "send_follow_ups").await;
    scene.cut_and_asked_for().await;
    gate::open(&scene.world.database).await;
    // The commit with the lost answer has stamped the follow-ups, so their wake-ups are published
    // once the stamps are removed.
    let parent = scene
        .world
        .wait_job_state("one", JobState::Waiting, SOON)
        .await;
    let stamped = format!(
        "SELECT count(*) FROM jobs WHERE parent_id = '{0}' AND state = 'ready'
            AND woken_at = (SELECT min(finished_at) FROM checkpoints WHERE job_id = '{0}' AND stage = 'send_follow_ups')",
        parent.id
    );
    // While its queue holds messages, a wake-up is published again as stale only after ten
    // minutes.
    wait_for("the stamps to be removed", SOON, async || {
        match scene.world.database.one(&stamped).await.as_str() {
            "0" => Ok(()),
            some => Err(format!(
                "{some} follow-ups still have the stamp of the commit"
            )),
        }
    })
    .await;
    let depth = scene
        .world
        .publisher()
        .await
        .depth(MESSAGING.queue)
        .await
        .expect("RabbitMQ answers");
    assert!(
        depth.ready > 0,
        "an empty queue would have stale wake-ups published again anyway"
    );
    scene
        .world
        .wait_job_state("one", JobState::Succeeded, SOON)
        .await;
    scene.world.wait_quiet(SOON).await;
    Checks::default().hold(&scene.world).await;
}

#[tokio::test]
async fn rows_stamped_by_a_statement_with_a_lost_answer_are_still_woken() {
    let world = TestWorld::acme().await;
    let (proxy, worker) = worker_by_way_of_a_proxy(&world, None).await;
    worker.ready().await;
    later(&world, "one").await;
    gate::shut_for_waking(&world.database).await;
    world.database.rows("UPDATE jobs SET due_at = now()").await;
    let stamping = gate::at_it(&world.database, None).await;
    proxy.cut(stamping.port);
    // The statement is still undecided when the worker first removes its stamps.
    wait_for("the duty to fail", SOON, async || {
        if worker.log().contains("the duty failed") {
            Ok(())
        } else {
            Err("it has not")
        }
    })
    .await;
    gate::open(&world.database).await;
    let taken = Instant::now();
    wait_for("the job to be woken", SOON, async || {
        let row = world.job_by_key("one").await.ok_or("no row")?;
        if row.epoch > 0 {
            Ok(())
        } else {
            Err("it has not been claimed")
        }
    })
    .await;
    assert!(
        taken.elapsed() < STAMPS_WITHIN,
        "woken only as stale after {:?}",
        taken.elapsed()
    );
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    world.wait_quiet(SOON).await;
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn a_commit_that_ended_with_its_backend_is_repeated() {
    for stage in STAGES {
        let scene = Scene::new(stage).await;
        scene
            .world
            .database
            .rows(&format!(
                "SELECT pg_terminate_backend({})",
                scene.first.backend
            ))
            .await;
        gate::at_it(&scene.world.database, Some(&scene.first)).await;
        scene.goes_on().await;
    }
}

/// A text that only the commit of `retrieve_user` sends to Postgres.
const PROFILE: &str = "\"display_name\"";

#[tokio::test]
async fn a_commit_that_arrives_after_the_lookup_is_found_when_the_repeated_one_meets_its_checkpoint()
 {
    let world = TestWorld::acme().await;
    let (proxy, _worker) = worker_by_way_of_a_proxy(&world, None).await;
    proxy.hold_back(PROFILE);
    publish_one(&world).await;
    let at_the_proxy = async |before: Option<u16>| {
        wait_for("a commit at the proxy", SOON, async || {
            proxy
                .holding()
                .into_iter()
                .find(|one| Some(*one) != before)
                .ok_or("there is none")
        })
        .await
    };
    let first = at_the_proxy(None).await;
    proxy.cut(first);
    // The worker repeats the commit only after its lookup has not found the first one.
    let second = at_the_proxy(Some(first)).await;
    let checkpoints = async || {
        world
            .database
            .one("SELECT count(*) FROM checkpoints WHERE stage = 'retrieve_user'")
            .await
    };
    assert_eq!(checkpoints().await, "0");
    proxy.deliver(first);
    wait_for("the first one to arrive", SOON, async || {
        if checkpoints().await == "1" {
            Ok(())
        } else {
            Err("it has not")
        }
    })
    .await;
    proxy.deliver(second);
    is_done_once(&world).await;
}
