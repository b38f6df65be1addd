//! A commit whose answer never comes: what became of it is found out, and nothing is done twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;
use dispatch_worker::pipelines::MESSAGING;

use crate::engine_wake_ups::later;
use crate::support::{Checks, Proxy, TestWorld, WorkerOptions, WorkerProcess, acme, gate, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// Sooner than a stale wake-up is published again where its queue is empty.
const STAMPS_WITHIN: Duration = Duration::from_secs(3);
/// One whose record goes with a group's, and one that changes the tracker, whose commit goes alone.
const STAGES: [&str; 2] = ["retrieve_user", "update_assignments"];

/// Who waits for a commit to be decided.
const ASKS: &str = "
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%AS ours FROM jobs%'";

/// A job whose commit of a stage stands at the gate.
struct Scene {
    world: TestWorld,
    proxy: Proxy,
    first: gate::Standing,
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
        Self { world, proxy, first, _worker: worker }
    }

    /// The link breaks before the answer, and the worker waits to see what became of the commit.
    async fn cut_and_asked_for(&self) {
        self.proxy.cut(self.first.port);
        wait_for("the worker to ask what became of it", SOON, async || match self.world.database.one(ASKS).await.as_str() {
            "1" => Ok(()),
            others => Err(format!("{others} ask")),
        })
        .await;
    }

    /// The job goes on, and everything is done once.
    async fn goes_on(&self) {
        gate::open(&self.world.database).await;
        is_done_once(&self.world).await;
    }
}

async fn worker_by_way_of_a_proxy(world: &TestWorld, concurrency: Option<u16>) -> (Proxy, WorkerProcess) {
    let proxy = Proxy::to(&world.database.worker_url).await;
    let environment = BTreeMap::from([("DISPATCH_DATABASE_URL".to_owned(), proxy.url())]);
    let worker = world.worker(&WorkerOptions { environment, concurrency, call_seconds: Some(30), ..WorkerOptions::default() });
    (proxy, worker)
}

async fn publish_one(world: &TestWorld) {
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
}

/// The job succeeds by the same worker in the same epoch.
async fn is_done_once(world: &TestWorld) {
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    world.wait_quiet(SOON).await;
    let epochs = "SELECT max(epoch), max(crash_count) FROM jobs WHERE pipeline = 'dispatch'";
    assert_eq!(world.database.rows(epochs).await, [["1", "0"]], "nobody took it over");
    Checks::default().hold(world).await;
}

#[tokio::test]
async fn one_that_comes_late_is_found_and_not_made_again() {
    for stage in STAGES {
        let scene = Scene::new(stage).await;
        scene.cut_and_asked_for().await;
        scene.goes_on().await;
    }
}

#[tokio::test]
async fn follow_ups_of_one_that_comes_late_are_woken_though_their_queue_is_not_empty() {
    let world = TestWorld::acme().await;
    let (proxy, worker) = worker_by_way_of_a_proxy(&world, Some(1)).await;
    // One seat, and a message that takes its time: the messages behind it stand in the queue.
    let slow = FaultRule::new(FaultKind::Slow).millis(12_000).path_contains("/webhook/").times(1);
    let id = world.simulator().await.client.fault(&slow).await.expect("the simulator takes the fault");
    for (key, to) in [("before-1", acme::ANN), ("before-2", acme::BOB)] {
        let event = world.assign(acme::OTHER_ITEM, Some(to)).await;
        world.publish_job(&acme::job(key, &event)).await;
        world.wait_job_state(key, JobState::Waiting, SOON).await;
    }
    world.wait_fault_met(id).await;
    let scene = Scene::at(world, proxy, worker, "send_follow_ups").await;
    scene.cut_and_asked_for().await;
    gate::open(&scene.world.database).await;
    // Stamped in a commit whose answer never came, nobody publishes their wake-ups before the stamps are taken back.
    let parent = scene.world.wait_job_state("one", JobState::Waiting, SOON).await;
    let stamped = format!(
        "SELECT count(*) FROM jobs WHERE parent_id = '{0}' AND state = 'ready'
            AND woken_at = (SELECT min(finished_at) FROM checkpoints WHERE job_id = '{0}' AND stage = 'send_follow_ups')",
        parent.id
    );
    wait_for("the stamps to be taken back", STAMPS_WITHIN, async || match scene.world.database.one(&stamped).await.as_str() {
        "0" => Ok(()),
        some => Err(format!("{some} follow-ups are as the commit has stamped them")),
    })
    .await;
    let depth = scene.world.publisher().await.depth(MESSAGING.queue).await.expect("RabbitMQ answers");
    assert!(depth.ready > 0, "otherwise stale wake-ups are published again anyway");
    scene.world.wait_job_state("one", JobState::Succeeded, SOON).await;
    scene.world.wait_quiet(SOON).await;
    Checks::default().hold(&scene.world).await;
}

#[tokio::test]
async fn rows_that_were_stamped_by_a_statement_whose_answer_is_lost_are_woken_all_the_same() {
    let world = TestWorld::acme().await;
    let (proxy, worker) = worker_by_way_of_a_proxy(&world, None).await;
    worker.ready().await;
    later(&world, "one").await;
    gate::shut_for_waking(&world.database).await;
    world.database.rows("UPDATE jobs SET due_at = now()").await;
    let stamping = gate::at_it(&world.database, None).await;
    proxy.cut(stamping.port);
    // The statement is not decided yet when the worker first takes its stamps back.
    wait_for(
        "the worker to notice",
        SOON,
        async || {
            if worker.log().contains("the duty failed") { Ok(()) } else { Err("it has not") }
        },
    )
    .await;
    gate::open(&world.database).await;
    let taken = Instant::now();
    wait_for("the job to be woken", SOON, async || {
        let row = world.job_by_key("one").await.ok_or("no row")?;
        if row.epoch > 0 { Ok(()) } else { Err("nobody has claimed it") }
    })
    .await;
    assert!(taken.elapsed() < STAMPS_WITHIN, "a stale wake-up, published again after {:?}", taken.elapsed());
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    world.wait_quiet(SOON).await;
    Checks::default().hold(&world).await;
}

#[tokio::test]
async fn one_that_ended_with_its_backend_is_made_again() {
    for stage in STAGES {
        let scene = Scene::new(stage).await;
        scene.world.database.rows(&format!("SELECT pg_terminate_backend({})", scene.first.backend)).await;
        gate::at_it(&scene.world.database, Some(&scene.first)).await;
        scene.goes_on().await;
    }
}

/// Only the commit of `retrieve_user` sends this to Postgres.
const PROFILE: &str = "\"display_name\"";

#[tokio::test]
async fn one_that_arrives_after_it_was_not_found_is_found_when_the_second_one_meets_its_checkpoint() {
    let world = TestWorld::acme().await;
    let (proxy, _worker) = worker_by_way_of_a_proxy(&world, None).await;
    proxy.hold_back(PROFILE);
    publish_one(&world).await;
    let at_the_proxy = async |before: Option<u16>| {
        wait_for("a commit at the proxy", SOON, async || {
            proxy.holding().into_iter().find(|one| Some(*one) != before).ok_or("there is none")
        })
        .await
    };
    let first = at_the_proxy(None).await;
    proxy.cut(first);
    // The worker commits again only after it has looked and not found the first commit.
    let second = at_the_proxy(Some(first)).await;
    let checkpoints = async || world.database.one("SELECT count(*) FROM checkpoints WHERE stage = 'retrieve_user'").await;
    assert_eq!(checkpoints().await, "0");
    proxy.deliver(first);
    wait_for("the first one to arrive", SOON, async || if checkpoints().await == "1" { Ok(()) } else { Err("it has not") }).await;
    proxy.deliver(second);
    is_done_once(&world).await;
}
