//! Stages that are interrupted between their calls: they reuse what they have read if nothing has
//! changed, and read it again otherwise.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::job::JobState;
use dispatch_worker::operations::retry;
use dispatch_worker::store::{Actor, Role, Target};
use serde_json::json;

use super::tenant::{self, ANN, Item, Tenant};
use super::{NOBODY, refusal};
use crate::support::{ANY_ATTEMPT, Checks, TestWorld, acme, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// Enough work items for two pages of search results and two batches.
const MANY: i64 = 250;
const BATCH: &str = "/_apis/wit/workitemsbatch";

/// Returns a tenant with many work items of the same title.
fn many(name: &str) -> Tenant {
    let items = (1001..1001 + MANY)
        .map(|id| Item {
            title: "One of many",
            ..Item::new(id)
        })
        .collect();
    Tenant {
        items,
        ..Tenant::new(name)
    }
}

/// Returns the number of answered requests for each page of the search and each batch.
fn pages(world: &TestWorld) -> Vec<(String, usize)> {
    let witness = world.witness();
    let mut keys: Vec<&str> = witness
        .iter()
        .filter_map(|entry| entry.key.as_deref())
        .collect();
    keys.sort_unstable();
    keys.chunk_by(|one, other| one == other)
        .map(|same| (same[0].to_owned(), same.len()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_drains_between_two_pages_leaves_the_read_pages_to_the_next_worker() {
    let world = TestWorld::new().await;
    let tenant = many("drained");
    tenant::settle(&world, State::new(), &[&tenant]).await;
    let slow = FaultRule::new(FaultKind::Slow)
        .path_contains(&tenant.path("/_apis/search"))
        .millis(1500)
        .times(1);
    let id = world.simulator().await.client.fault(&slow).await.unwrap();
    let mut first = world.worker(&tenant::worker());
    first.ready().await;
    let mut job = tenant.job("drained");
    job["search"] = json!({"text": "many", "limit": 1000});
    world.publish_job(&job).await;
    world.wait_fault_met(id).await;
    first.terminate();
    assert!(first.wait_exit(SOON).await.success());
    let left = world
        .job_by_key("drained")
        .await
        .expect("the job has a row");
    assert_eq!(
        (left.state, left.stage.as_str(), left.attempt),
        (JobState::Ready, "search_issues", 1),
        "released mid-stage"
    );
    assert_eq!(
        world.database.one("SELECT count(*) FROM attempts").await,
        "0",
        "no attempt was used"
    );

    let _second = world.worker(&tenant::worker());
    world
        .wait_job_state("drained", JobState::Succeeded, SOON)
        .await;
    let of_account = |key: &str| (key.replace("ACC", &tenant.account()), 1);
    let once = [
        "search:ACC@0",
        "search:ACC@200",
        "work_items:ACC@1001",
        "work_items:ACC@1201",
    ]
    .map(of_account);
    assert_eq!(pages(&world), once);
    assert_eq!(
        world
            .database
            .one("SELECT count(*) FROM jobs WHERE partial IS NOT NULL")
            .await,
        "0"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_work_item_deleted_between_the_read_and_the_patch_ends_as_deleted() {
    let world = TestWorld::new().await;
    let tenant = Tenant {
        groups: vec![vec![17, 18]],
        ..Tenant::new("gone")
    };
    tenant::settle(&world, State::new(), &[&tenant]).await;
    let client = &world.simulator().await.client;
    let patch = tenant.path("/_apis/wit/workitems/18");
    let slow = FaultRule::new(FaultKind::Slow)
        .method("PATCH")
        .path_contains(&patch)
        .millis(1500)
        .times(1);
    let id = client.fault(&slow).await.unwrap();
    let _worker = world.worker(&tenant::worker());
    let mut job = tenant.job("gone");
    let event = tenant.assign(&world, 17, ANN).await;
    job["events"] = json!([{"payload": event, "shared_secret": acme::HOOK_SECRET}]);
    world.publish_job(&job).await;
    world.wait_fault_met(id).await;
    client
        .delete_work_item(&tenant.account(), 18)
        .await
        .unwrap();
    world
        .wait_job_state("gone", JobState::Succeeded, SOON)
        .await;
    let result = "SELECT output ->> 'result' FROM checkpoints WHERE stage = 'patch_work_item'";
    assert_eq!(world.database.one(result).await, "deleted");
    assert_eq!(
        world.database.one("SELECT count(*) FROM attempts").await,
        "0",
        "the decision was repeated within the attempt"
    );
    Checks::default().hold(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retrying_a_parked_job_reads_its_pages_again() {
    let world = TestWorld::new().await;
    let tenant = Tenant {
        has_refresh_token: false,
        ..many("retried")
    };
    tenant::settle(&world, State::new(), &[&tenant]).await;
    let client = &world.simulator().await.client;
    let states = tenant.path("/Shop/_apis/wit/workitemtypes");
    let refused = refusal(401, "UnauthorizedRequestException", NOBODY).path_contains(&states);
    let id = client.fault(&refused).await.unwrap();
    let _worker = world.worker(&tenant::worker());
    let mut job = tenant.job("retried");
    job["search"] = json!({"text": "many", "limit": 1000});
    world.publish_job(&job).await;
    let parked = world
        .wait_job_state("retried", JobState::Parked, SOON)
        .await;
    assert_eq!(parked.error_code.as_deref(), Some("azure_devops.no_access"));
    client.clear_fault(id).await.unwrap();
    let actor = Actor {
        who: "ann".to_owned(),
        role: Role::Admin,
        reason: Some("access given".to_owned()),
        request: None,
    };
    retry(&world.store(), &actor, &Target::Id(parked.id))
        .await
        .unwrap();
    world
        .wait_job_state("retried", JobState::Succeeded, SOON)
        .await;
    let batches = |world: &TestWorld| {
        world
            .witness()
            .iter()
            .filter(|entry| entry.path.ends_with(BATCH))
            .count()
    };
    wait_for("the batches of both runs", SOON, async || {
        match batches(&world) {
            4 => Ok(()),
            other => Err(format!("{other} batches")),
        }
    })
    .await;
    Checks {
        attempts: ANY_ATTEMPT,
    }
    .hold(&world)
    .await;
}
