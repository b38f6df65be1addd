//! A lease that is lost is not the job's fault while its process lives.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// More than would park a job whose owners die.
const LOST: u64 = 6;

#[tokio::test]
async fn a_job_whose_owners_lose_six_leases_and_live_on_is_not_parked() {
    let world = TestWorld::acme().await;
    let _workers = [world.worker(&WorkerOptions::default()), world.worker(&WorkerOptions::default())];
    world.publish_held_up("one", FaultRule::new(FaultKind::Hang)).await;
    let hang = FaultRule::new(FaultKind::Hang).path_contains(crate::support::acme::PROFILE).times(LOST - 1);
    world.simulator().await.client.fault(&hang).await.unwrap();
    for lost in 1..=LOST {
        let owner = wait_for("an owner", SOON, async || {
            let job = world.job_by_key("one").await.ok_or("no row".to_owned())?;
            assert_ne!(job.state, JobState::Parked, "after {} lost leases: {:?}", lost - 1, job.error_code);
            job.owner.ok_or_else(|| format!("after {} lost leases: {job:?}", lost - 1))
        })
        .await;
        // The session of the owner's heartbeat ends, as in an outage; its process goes on as another replica.
        let cut = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7264021 AND objid = {owner}
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        assert_eq!(world.database.one(&cut).await, "1", "its session holds its lock");
        wait_for("another owner", SOON, async || {
            let job = world.job_by_key("one").await.ok_or("no row")?;
            if job.owner != Some(owner) { Ok(()) } else { Err(format!("replica {owner} still has it")) }
        })
        .await;
        let ended = format!("SELECT ended_well FROM replicas WHERE id = {owner}");
        wait_for("its process to go on as another replica", SOON, async || match world.database.one(&ended).await.as_str() {
            "t" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await;
    }
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    Checks::default().hold(&world).await;
}
