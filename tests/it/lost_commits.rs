//! A commit whose answer never comes: what became of it is found out, and nothing is done twice.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch_worker::job::JobState;

use crate::support::{Checks, Proxy, TestWorld, WorkerOptions, WorkerProcess, acme, gate, wait_for};

const SOON: Duration = Duration::from_secs(30);
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
        gate::shut(&world.database, stage).await;
        let proxy = Proxy::to(&world.database.url).await;
        let worker = at_work(&world, &proxy).await;
        let first = gate::at_it(&world.database, None).await;
        Self { world, proxy, first, _worker: worker }
    }

    /// The job goes on, and everything is done once.
    async fn goes_on(&self) {
        gate::open(&self.world.database).await;
        is_done_once(&self.world).await;
    }
}

/// A worker that reaches Postgres by way of the proxy, and a job for it.
async fn at_work(world: &TestWorld, proxy: &Proxy) -> WorkerProcess {
    let environment = BTreeMap::from([("DISPATCH_DATABASE_URL".to_owned(), proxy.url())]);
    let worker = world.worker(&WorkerOptions { environment, ..WorkerOptions::default() });
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    worker
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
        scene.proxy.cut(scene.first.port);
        wait_for("the worker to ask what became of it", SOON, async || match scene.world.database.one(ASKS).await.as_str() {
            "1" => Ok(()),
            others => Err(format!("{others} ask")),
        })
        .await;
        scene.goes_on().await;
    }
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
    let proxy = Proxy::to(&world.database.url).await;
    proxy.hold_back(PROFILE);
    let _worker = at_work(&world, &proxy).await;
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
