//! Isolation of outages: without RabbitMQ, jobs of dead workers are still taken over.

use std::time::{Duration, Instant};

use dispatch_worker::devkit::guard::Command;
use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, WorkerProcess, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);
const JOBS: usize = 16;
/// The time limit for the slowest takeover.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(2);

/// Starts a worker whose jobs all wait for a provider, and another worker without jobs.
pub(crate) async fn busy_and_idle(world: &TestWorld) -> (WorkerProcess, WorkerProcess) {
    let options = WorkerOptions {
        concurrency: Some(32),
        ..WorkerOptions::default()
    };
    let busy = world.worker(&options);
    busy.ready().await;
    let simulator = &world.simulator().await.client;
    let hang = FaultRule::new(FaultKind::Hang)
        .path_contains(acme::PROFILE)
        .times(JOBS as u64);
    let id = simulator
        .fault(&hang)
        .await
        .expect("the simulator accepts the fault");
    for number in 0..JOBS {
        let event = world
            .assign(
                acme::LONE_ITEM,
                Some(if number % 2 == 0 {
                    acme::ANN
                } else {
                    acme::BOB
                }),
            )
            .await;
        world
            .publish_job(&acme::job(&format!("held-{number}"), &event))
            .await;
    }
    wait_for("every job to hang", SOON, async || {
        let faults = simulator
            .faults()
            .await
            .expect("the simulator lists its faults");
        let hits = faults
            .iter()
            .find(|fault| fault.id == id)
            .map_or(0, |fault| fault.hits);
        if hits == JOBS as u64 {
            Ok(())
        } else {
            Err(format!("{hits} hang"))
        }
    })
    .await;
    let idle = world.worker(&options);
    idle.ready().await;
    (busy, idle)
}

/// Kills a worker and asserts that another worker claims each of its jobs within the time limit.
pub(crate) async fn kill_and_measure(world: &TestWorld, worker: WorkerProcess) {
    let in_hand = format!(
        "SELECT j.id FROM jobs j JOIN replicas r ON r.id = j.owner WHERE r.pid = {} AND r.ended_at IS NULL",
        worker.pid
    );
    let jobs = world.database.rows(&in_hand).await.concat();
    assert!(!jobs.is_empty(), "the worker owns no job");
    worker.kill9().await;
    let killed = Instant::now();
    // A takeover raises the epoch, and so does the claim that follows.
    let left = format!(
        "SELECT count(*) FROM jobs WHERE id IN ('{}') AND epoch < 3",
        jobs.join("', '")
    );
    wait_for(
        "every job to have another owner",
        SOON,
        async || match world.database.one(&left).await.as_str() {
            "0" => Ok(()),
            some => Err(format!(
                "{some} of {} jobs have the dead owner or none",
                jobs.len()
            )),
        },
    )
    .await;
    let slowest = killed.elapsed();
    assert!(
        slowest <= TAKEN_OVER_WITHIN,
        "the slowest takeover of {} took {slowest:?}",
        jobs.len()
    );
}

#[tokio::test]
async fn jobs_of_a_dead_worker_are_taken_over_within_two_seconds_without_rabbitmq_and_the_late_duty_is_reported()
 {
    let world = TestWorld::with_own_servers().await;
    let (busy, idle) = busy_and_idle(&world).await;
    world.server_command(Command::StopRabbitmq).await;
    kill_and_measure(&world, busy).await;
    idle.not_ready("\"duty_due\":{\"detail\":\"late").await;
    wait_for("the metric of the late duty", SOON, async || {
        let metrics = idle.metrics().await;
        if metrics.contains("dispatch_duty_late{duty=\"due\"} 1") {
            Ok(())
        } else {
            Err("the metric is not set")
        }
    })
    .await;
    let (_, readiness) = idle.readiness().await.unwrap();
    for duty in [
        "takeover",
        "stamps",
        "orphans",
        "deadlines",
        "holds",
        "backlog",
    ] {
        assert!(
            readiness.contains(&format!("\"duty_{duty}\":{{\"detail\":\"done")),
            "{duty}: {readiness}"
        );
    }
    world.server_command(Command::StartRabbitmq).await;
    for number in 0..JOBS {
        world
            .wait_job_state(&format!("held-{number}"), JobState::Succeeded, SOON)
            .await;
    }
    idle.ready().await;
    Checks::default().hold(&world).await;
}
