//! A lost lease does not count as a crash of the job if the process lives on.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// The number of lost leases; more than the crashes that park a job.
const LOST: u64 = 6;

#[tokio::test]
async fn a_job_whose_living_owners_lose_six_leases_is_not_parked() {
    let world = TestWorld::acme().await;
    let _workers = [
        world.worker(&WorkerOptions::default()),
        world.worker(&WorkerOptions::default()),
    ];
    world
        .publish_held_up("one", FaultRule::new(FaultKind::Hang))
        .await;
    let hang = FaultRule::new(FaultKind::Hang)
        .path_contains(crate::support::acme::PROFILE)
        .times(LOST - 1);
    world.simulator().await.client.fault(&hang).await.unwrap();
    for lost in 1..=LOST {
        let owner = wait_for("an owner", SOON, async || {
            let job = world.job_by_key("one").await.ok_or("no row".to_owned())?;
            assert_ne!(
                job.state,
                JobState::Parked,
                "after {} lost leases: {:?}",
                lost - 1,
                job.error_code
            );
            job.owner
                .ok_or_else(|| format!("after {} lost leases: {job:?}", lost - 1))
        })
        .await;
        // Ends the session of the owner's heartbeat, as an outage does; its process continues as
        // another replica.
        let cut = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND classid = 7264021 AND objid = {owner}
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        );
        assert_eq!(
            world.database.one(&cut).await,
            "1",
            "the session holds the lock of the replica"
        );
        wait_for("another owner", SOON, async || {
            let job = world.job_by_key("one").await.ok_or("no row")?;
            if job.owner != Some(owner) {
                Ok(())
            } else {
                Err(format!("replica {owner} still has it"))
            }
        })
        .await;
        let ended = format!("SELECT ended_well FROM replicas WHERE id = {owner}");
        wait_for(
            "the process to continue as another replica",
            SOON,
            async || match world.database.one(&ended).await.as_str() {
                "t" => Ok(()),
                other => Err(other.to_owned()),
            },
        )
        .await;
    }
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    Checks::default().hold(&world).await;
}
