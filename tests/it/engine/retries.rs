//! Retries: a retry is a row with a later `due_at`.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::job::JobState;

use crate::support::{Checks, TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(30);
const ASKED: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_call_is_retried_exactly_after_the_provider_s_retry_after() {
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let patience = FaultRule {
        retry_after: Some(ASKED.as_secs()),
        ..FaultRule::new(FaultKind::RateLimit)
    };
    world
        .simulator()
        .await
        .client
        .fault(&patience.path_contains(acme::PROFILE).times(1))
        .await
        .unwrap();
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    let waiting = wait_for("the second attempt to be due", SOON, async || {
        let row = world.job_by_key("one").await.ok_or("no row")?;
        if row.attempt == 2 {
            Ok(row)
        } else {
            Err("the first attempt is not over")
        }
    })
    .await;
    assert_eq!(
        (waiting.state, waiting.stage.as_str(), waiting.owner),
        (JobState::Ready, "retrieve_user", None)
    );
    let view = world.job_view(waiting.id).await;
    let asked = waiting.due_at - view.attempts[0].at;
    assert_eq!(
        asked.whole_milliseconds(),
        i128::try_from(ASKED.as_millis()).unwrap(),
        "a Retry-After has no jitter"
    );

    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    let calls: Vec<_> = world
        .witness()
        .into_iter()
        .filter(|entry| entry.path.contains(acme::PROFILE))
        .collect();
    let [refused, answered] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert!(
        answered.at - refused.at >= ASKED,
        "{} after {}",
        answered.at,
        refused.at
    );
    let code = view.attempts[0].error_code.as_str();
    assert_eq!(
        (view.attempts.len(), code),
        (1, "azure_devops.rate_limited")
    );
    Checks {
        attempts: &[("retrieve_user", "azure_devops.rate_limited")],
    }
    .hold(&world)
    .await;
}

#[tokio::test]
async fn a_call_with_a_lost_answer_takes_effect_once_if_keyed_and_is_recorded_as_unknown_otherwise()
{
    let world = TestWorld::acme().await;
    let _worker = world.worker(&WorkerOptions::default());
    let simulator = &world.simulator().await.client;
    for path in [
        "/_apis/wit/workitems/18",
        "/channels/",
        "/webhook/keyed",
        "/webhook/blind",
    ] {
        let lost = FaultRule::new(FaultKind::LoseAnswer)
            .path_contains(path)
            .times(1);
        let method = if path.contains("workitems") {
            "PATCH"
        } else {
            "POST"
        };
        simulator.fault(&lost.method(method)).await.unwrap();
    }
    let event = world.assign(acme::WORK_ITEM, Some(acme::ANN)).await;
    world.publish_job(&acme::job("one", &event)).await;
    world.wait_job_state("one", JobState::Succeeded, SOON).await;
    assert!(
        simulator
            .faults()
            .await
            .unwrap()
            .iter()
            .all(|fault| fault.hits == 1),
        "every answer was lost once"
    );
    let unknowns =
        "SELECT class || ' ' || sum(unknowns) FROM effects GROUP BY class ORDER BY class";
    assert_eq!(
        world.database.rows(unknowns).await.concat(),
        ["K1 0", "K2 0", "K3 1"]
    );
    Checks { attempts: LOST }.hold(&world).await;
}

/// The error codes of a lost answer at each stage that had one.
const LOST: &[(&str, &str)] = &[
    ("patch_work_item", "azure_devops.connection_lost"),
    ("deliver_message", "discord.connection_lost"),
    ("deliver_message", "webhook.connection_lost"),
];
