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
        let environment = BTreeMap::from([("DISPATCH_DATABASE_URL".to_owned(), proxy.url())]);
        let worker = world.worker(&WorkerOptions { environment, ..WorkerOptions::default() });
        let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
        world.publish_job(&acme::job("one", &event)).await;
        let first = gate::at_it(&world.database, None).await;
        Self { world, proxy, first, _worker: worker }
    }

    /// The job goes on, by the same worker in the same epoch, and everything is done once.
    async fn goes_on(&self) {
        gate::open(&self.world.database).await;
        self.world.wait_job_state("one", JobState::Succeeded, SOON).await;
        self.world.wait_quiet(SOON).await;
        let epochs = "SELECT max(epoch), max(crash_count) FROM jobs WHERE pipeline = 'dispatch'";
        assert_eq!(self.world.database.rows(epochs).await, [["1", "0"]], "nobody took it over");
        Checks::default().hold(&self.world).await;
    }
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
